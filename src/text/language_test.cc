#include "text/language.h"

#include <gtest/gtest.h>

namespace nibble::text {
namespace {

TEST(Language, TellsTheLanguagesOfItsListApart) {
  const std::pair<const char*, const char*> rows[] = {
      {"en", "The rain stopped before noon and we walked home by the lake."},
      {"es", "La lluvia paró antes del mediodía y volvimos a casa por el lago."},
      {"pt", "A chuva parou antes do meio-dia e nós não voltamos para casa pelo lago."},
      {"fr", "La pluie a cessé avant midi et nous sommes rentrés à la maison par le lac."},
      {"de", "Der Regen hörte vor dem Mittag auf und wir gingen am See entlang nach Hause."},
      {"it", "La pioggia è cessata prima di mezzogiorno e siamo tornati a casa lungo il lago."},
      {"pl", "Deszcz ustał przed południem, a my wróciliśmy do domu, bo nie było już zimno."},
      {"vi", "Mưa đã tạnh trước buổi trưa và chúng tôi không đi về nhà bằng xe của họ."},
      {"sw", "Mvua iliacha kabla ya saa sita na sisi tulirudi nyumbani kwa miguu katika njia ya ziwa."},
      {"fi", "Sade loppui ennen puoltapäivää ja me kävelimme kotiin, mutta se ei ollut kaukana."},
      {"nl", "De regen hield voor de middag op en we liepen langs het meer naar huis."},
      {"sv", "Regnet slutade före middag och vi gick hem längs sjön, men det var inte långt."},
      {"tr", "Yağmur öğleden önce durdu ve bir saat sonra göl boyunca eve döndük."},
      {"id", "Hujan berhenti sebelum siang dan kami pulang dengan sepeda dari danau itu."},
      {"ro", "Ploaia s-a oprit înainte de prânz și nu am mers pe jos din cauza ei."},
      {"hi", "बारिश दोपहर से पहले रुक गई और हम झील के किनारे से घर गए।"},
      {"mr", "दुपारच्या आधी पाऊस थांबला आणि आम्ही तळ्याकाठाने घरी आलो, हे छान आहे."},
      {"ne", "दिउँसो अगाडि पानी रोकियो र हामी घर फर्कियौं, यो राम्रो छ।"},
      {"bn", "দুপুরের আগে বৃষ্টি থেমে গেল।"},
      {"pa", "ਦੁਪਹਿਰ ਤੋਂ ਪਹਿਲਾਂ ਮੀਂਹ ਰੁਕ ਗਿਆ।"},
      {"gu", "બપોર પહેલાં વરસાદ અટકી ગયો."},
      {"ta", "மதியத்திற்கு முன் மழை நின்றது."},
      {"te", "మధ్యాహ్నానికి ముందే వాన ఆగింది."},
      {"kn", "ಮಧ್ಯಾಹ್ನದ ಮೊದಲು ಮಳೆ ನಿಂತಿತು."},
      {"ml", "ഉച്ചയ്ക്ക് മുമ്പ് മഴ നിന്നു."},
      {"th", "ฝนหยุดก่อนเที่ยง"},
      {"ko", "비가 정오 전에 그쳤다."},
      {"ja", "雨は正午の前に止んだ。"},
      {"zh", "雨在中午之前停了。"},
      {"he", "הגשם פסק לפני הצהריים."},
      {"el", "Η βροχή σταμάτησε πριν το μεσημέρι."},
      {"ru", "Дождь прекратился до полудня, и мы пошли домой вдоль озера, это было близко."},
      {"uk", "Дощ припинився до полудня, і ми пішли додому вздовж озера."},
      {"bg", "Дъждът спря преди обяд и ние се прибрахме вкъщи покрай езерото."},
      {"ar", "توقف المطر قبل الظهر وعدنا إلى البيت بجانب البحيرة في المساء."},
      {"fa", "باران پیش از ظهر بند آمد و ما از کنار دریاچه به خانه برگشتیم."},
      {"ur", "بارش دوپہر سے پہلے رک گئی اور ہم جھیل کے کنارے گھر واپس آئے۔"},
  };
  for (const auto& [language, text] : rows) {
    EXPECT_EQ(guess_language(text), language) << text;
    EXPECT_TRUE(is_guessed_language(language)) << language;
  }
}

TEST(Language, CaseDoesNotMatter) {
  EXPECT_EQ(guess_language("THE DOG IS OUT AND IT RAINS"), "en");
  EXPECT_EQ(guess_language("ДЪЖДЪТ СПРЯ"), "bg");
}

TEST(Language, MostLettersDecide) {
  EXPECT_EQ(guess_language("The word मेघ is of Sanskrit origin and means cloud."), "en");
  EXPECT_EQ(guess_language("मेरा नाम राजेश है और मैं Bengaluru में रहता हूँ।"), "hi");
}

TEST(Language, SaysNothingWhereNothingTells) {
  for (const char* text : {"", " 12:30 – 14:00 ", "Qzx", "\xFF\xFE", "😀"}) EXPECT_EQ(guess_language(text), "") << text;
  EXPECT_FALSE(is_guessed_language("xx"));
  EXPECT_FALSE(is_guessed_language(""));
}

}  // namespace
}  // namespace nibble::text
