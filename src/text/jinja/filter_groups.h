// The filters by subject; filters.cc puts them into one table.
#pragma once

#include <span>

#include "text/jinja/filters.h"

namespace nibble::text::jinja {

std::span<const Filter> text_filters();
std::span<const Filter> number_filters();
std::span<const Filter> sequence_filters();

}  // namespace nibble::text::jinja
