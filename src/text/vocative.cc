#include "text/vocative.h"

#include <set>

#include "text/case_fold.h"
#include "text/detect.h"
#include "text/words.h"

namespace nibble::text {

Result<std::vector<std::string>> wrong_names(std::string_view text, std::span<const std::string> allowed) {
  NIBBLE_TRY(addressed, detect(DetectorFamily::vocative, text));
  std::set<std::string> known;
  for (const std::string& entry : allowed) {
    for (const std::string_view word : words(entry)) known.insert(case_fold(word));
  }
  std::vector<std::string> wrong;
  for (const Detection& hit : addressed) {
    if (!known.contains(case_fold(hit.name))) wrong.push_back(hit.name);
  }
  return wrong;
}

}  // namespace nibble::text
