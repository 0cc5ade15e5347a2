// Stands in for the undefined-behaviour sanitizer's report of an address that does not suit its type, so that
// the report names block and thread, and no library of the sanitizer's is needed. The structures are those
// that the compiler writes.
#include <cstdint>

#include "block.h"

namespace {

struct SourceLocation {
  const char* file;
  uint32_t line;
  uint32_t column;
};

struct TypeDescriptor {
  uint16_t kind;
  uint16_t info;
  char name[1];
};

struct TypeMismatch {
  SourceLocation where;
  const TypeDescriptor* type;
  unsigned char log_alignment;
  unsigned char access;
};

}  // namespace

extern "C" [[noreturn]] void __ubsan_handle_type_mismatch_v1_abort(const TypeMismatch* mismatch,
                                                                   uintptr_t address) {
  const uintptr_t alignment = uintptr_t{1} << mismatch->log_alignment;
  const char* what = "too little memory";
  if (address == 0)
    what = "null address";
  else if (address % alignment != 0)
    what = "misaligned address";
  cuda_on_cpu::fail_at(mismatch->where.file, mismatch->where.line, "%s %p for %s, whose alignment is %zu",
                       what, reinterpret_cast<void*>(address), mismatch->type->name,
                       static_cast<size_t>(alignment));
}
