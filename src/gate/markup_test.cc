#include "gate/markup.h"

#include <gtest/gtest.h>

#include "gate/chat_stream.h"
#include "text/utf8.h"

namespace nibble::gate {
namespace {

TEST(Markup, TextStaysText) {
  EXPECT_EQ(markup_text("</script><script>"), "&lt;/script&gt;&lt;script&gt;");
  EXPECT_EQ(markup_text("<!--"), "&lt;!--");
  EXPECT_EQ(markup_text("a]]>b"), "a]]&gt;b");
  EXPECT_EQ(markup_text("ನಮಸ್ಕಾರ\t&\n😀"), "ನಮಸ್ಕಾರ\t&amp;\n😀");
  const std::string quotes = markup_text("\"'");
  EXPECT_EQ(quotes.find_first_of("\"'"), std::string::npos);
}

TEST(Markup, ControlsBecomePicturesAndWhatXmlForbidsIsReplaced) {
  EXPECT_EQ(markup_text(std::string_view("\0\x1b[1m\x7f\r\n", 8)), "␀␛[1m␡␍\n");
  EXPECT_EQ(markup_text("\xef\xbf\xbf\xef\xbf\xbe"), "\uFFFD\uFFFD");                    // U+FFFF, U+FFFE
  EXPECT_EQ(markup_text("\xc2\x85"), "\uFFFD");                                          // a C1 control
  EXPECT_EQ(markup_text("a\xff\xc3(\xed\xa0\x80"), "a\uFFFD\uFFFD(\uFFFD\uFFFD\uFFFD");  // no UTF-8, a surrogate
}

TEST(Markup, EveryPairOfBytesIsAllowedInXml) {
  for (int first = 0; first < 256; ++first) {
    for (int second = 0; second < 256; ++second) {
      const std::string text = markup_text(std::string{static_cast<char>(first), static_cast<char>(second)});
      EXPECT_TRUE(text::valid_utf8(text));
      for (const char c : text) {
        EXPECT_TRUE(static_cast<unsigned char>(c) >= 0x20 || c == '\t' || c == '\n');
        EXPECT_TRUE(c != '<' && c != '>' && c != '"');
      }
    }
  }
}

TEST(Markup, NothingInADataBlockEndsIt) {
  const Json json = {{"text", "</script><script>alert(1)</script><!-- ]]> \x01 \xff"}, {"n", 1}};
  const std::string block = data_block("id=\"x\"", json);
  const std::string_view head = "<script type=\"application/json\" id=\"x\">", tail = "</script>\n";
  ASSERT_TRUE(block.starts_with(head) && block.ends_with(tail));
  const std::string inside = block.substr(head.size(), block.size() - head.size() - tail.size());
  EXPECT_EQ(inside.find('<'), std::string::npos);
  EXPECT_EQ(parse_json(inside, "block").value(), parse_json(dump(json), "json").value());
}

TEST(Markup, NamesAScriptForAPolicy) {
  EXPECT_EQ(csp_source(""), "sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=");
  EXPECT_EQ(csp_source("abc"), "sha256-ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=");
}

}  // namespace
}  // namespace nibble::gate
