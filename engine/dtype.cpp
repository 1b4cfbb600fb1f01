#include "engine/dtype.h"

#include "engine/error.h"

namespace nf {

DType parse_dtype(std::string_view name) {
  for (const DType dtype :
       {DType::f32, DType::f64, DType::f16, DType::bf16, DType::u8, DType::i32, DType::i64})
    if (name == to_string(dtype)) return dtype;
  fail("dtype: '{}' is not one of f32, f64, f16, bf16, u8, i32, i64", name);
}

}  // namespace nf
