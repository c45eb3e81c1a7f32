#include "text/characters.h"

#include <utf8proc.h>

namespace nibble::text {
namespace {

utf8proc_category_t category(char32_t scalar) {
  return utf8proc_category(static_cast<utf8proc_int32_t>(scalar));
}

}  // namespace

bool is_letter(char32_t scalar) {
  if (scalar < 0x80) return (scalar >= U'a' && scalar <= U'z') || (scalar >= U'A' && scalar <= U'Z');
  const utf8proc_category_t kind = category(scalar);
  return kind >= UTF8PROC_CATEGORY_LU && kind <= UTF8PROC_CATEGORY_LO;
}

bool is_mark(char32_t scalar) {
  if (scalar < 0x80) return false;
  const utf8proc_category_t kind = category(scalar);
  return kind >= UTF8PROC_CATEGORY_MN && kind <= UTF8PROC_CATEGORY_ME;
}

bool is_digit(char32_t scalar) {
  if (scalar < 0x80) return scalar >= U'0' && scalar <= U'9';
  return category(scalar) == UTF8PROC_CATEGORY_ND;
}

bool is_capital(char32_t scalar) {
  if (scalar < 0x80) return scalar >= U'A' && scalar <= U'Z';
  const utf8proc_category_t kind = category(scalar);
  return kind == UTF8PROC_CATEGORY_LU || kind == UTF8PROC_CATEGORY_LT;
}

bool is_white_space(char32_t scalar) {
  if (scalar < 0x80) return scalar == U' ' || (scalar >= U'\t' && scalar <= U'\r');
  const utf8proc_category_t kind = category(scalar);
  return scalar == 0x85 || (kind >= UTF8PROC_CATEGORY_ZS && kind <= UTF8PROC_CATEGORY_ZP);
}

}  // namespace nibble::text
