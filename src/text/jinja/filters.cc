#include "text/jinja/filters.h"

#include "text/jinja/filter_groups.h"

namespace nibble::text::jinja {

const Filter* find_filter(std::string_view name) {
  for (const auto group : {text_filters(), number_filters(), sequence_filters()}) {
    for (const Filter& filter : group) {
      if (filter.name == name) return &filter;
    }
  }
  return nullptr;
}

}  // namespace nibble::text::jinja
