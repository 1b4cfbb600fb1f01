#include "engine/backends/cuda/linear_cublas.h"

#include <algorithm>
#include <map>
#include <mutex>
#include <tuple>

#include "engine/backends/cuda/check.h"
#include "engine/backends/cuda/libraries.h"

namespace nf::cuda {
namespace {

// No algorithm reads or writes more at once. (By default cuBLAS reckons with 256.)
constexpr std::uint32_t kAlignment = 16;

bool aligned(const void* a, const void* b, const void* c) {
  return ((reinterpret_cast<std::uintptr_t>(a) | reinterpret_cast<std::uintptr_t>(b) |
           reinterpret_cast<std::uintptr_t>(c)) %
          kAlignment) == 0;
}

cudaDataType_t data_type(DType dtype) {
  switch (dtype) {
    case DType::f32:
      return CUDA_R_32F;
    case DType::f16:
      return CUDA_R_16F;
    case DType::bf16:
      return CUDA_R_16BF;
    default:
      fail("linear: cuda computes in f32, f16 and bf16, not in {}", to_string(dtype));
  }
}

// cuBLAS is column-major: a row-major (rows, columns) matrix is its transpose, columns x rows.
// Every product here is written as C (m x n) = op(A) (m x k) op(B) (k x n) of such matrices.
struct Product {
  cublasOperation_t transpose_a, transpose_b;
  std::int64_t m, n, k;
  std::int64_t a_rows, a_columns, b_rows, b_columns;  // as stored, column-major

  Product(const LinearProblem& p, Pass pass) {
    switch (pass) {
      case Pass::forward:  // y^T (O x N) = w (O x I) x^T (I x N)
        *this = {CUBLAS_OP_T, CUBLAS_OP_N, p.o, p.n, p.i, p.i, p.o, p.i, p.n};
        break;
      case Pass::backward_input:  // dx^T (I x N) = w^T (I x O) dy^T (O x N)
        *this = {CUBLAS_OP_N, CUBLAS_OP_N, p.i, p.n, p.o, p.i, p.o, p.o, p.n};
        break;
      case Pass::backward_weight:  // dw^T (I x O) = x^T (I x N) dy (N x O)
        *this = {CUBLAS_OP_N, CUBLAS_OP_T, p.i, p.o, p.n, p.i, p.n, p.o, p.n};
        break;
    }
  }

 private:
  Product(cublasOperation_t transpose_a, cublasOperation_t transpose_b, std::int64_t m,
          std::int64_t n, std::int64_t k, std::int64_t a_rows, std::int64_t a_columns,
          std::int64_t b_rows, std::int64_t b_columns)
      : transpose_a(transpose_a),
        transpose_b(transpose_b),
        m(m),
        n(n),
        k(k),
        a_rows(a_rows),
        a_columns(a_columns),
        b_rows(b_rows),
        b_columns(b_columns) {}
};

struct Choice {
  cublasLtMatmulDesc_t product = nullptr;
  cublasLtMatrixLayout_t a = nullptr, b = nullptr, c = nullptr;
  cublasLtMatmulAlgo_t algorithm{};
  std::int64_t workspace = 0;

  Choice() = default;
  ~Choice() {
    for (cublasLtMatrixLayout_t layout : {a, b, c})
      if (layout != nullptr) cublas().cublasLtMatrixLayoutDestroy(layout);
    if (product != nullptr) cublas().cublasLtMatmulDescDestroy(product);
  }
  Choice(const Choice&) = delete;
  Choice& operator=(const Choice&) = delete;
};

}  // namespace

CublasHandle::CublasHandle() { NF_CUDA_CHECK(cublas().cublasLtCreate(&handle_)); }

CublasHandle::~CublasHandle() { cublas().cublasLtDestroy(handle_); }

class Products::Implementation {
 public:
  Implementation(const CublasHandle& handle, cudaStream_t stream, const ProductOptions& options)
      : stream_(stream), handle_(handle.get()), options_(options) {}

  std::int64_t workspace(const LinearProblem& p, Pass pass) {
    const std::lock_guard lock(mutex_);
    return choice(p, pass, true).workspace;
  }

  void multiply(const LinearProblem& p, Pass pass, const void* a, const void* b, void* c,
                GradMode mode, Workspace workspace) {
    const std::lock_guard lock(mutex_);
    const Choice& chosen = choice(p, pass, aligned(a, b, c));
    const float one = 1, kept = mode == GradMode::accumulate ? 1.0F : 0.0F;
    NF_CUDA_CHECK(cublas().cublasLtMatmul(
        handle_, chosen.product, &one, a, chosen.a, b, chosen.b, &kept, c, chosen.c, c, chosen.c,
        &chosen.algorithm, workspace.data, static_cast<std::size_t>(workspace.bytes), stream_));
  }

 private:
  using Key = std::tuple<DType, std::int64_t, std::int64_t, std::int64_t, Pass, bool>;

  const Choice& choice(const LinearProblem& p, Pass pass, bool aligned) {
    std::unique_ptr<Choice>& known = choices_[Key{p.dtype, p.n, p.i, p.o, pass, aligned}];
    if (known == nullptr) {
      // The workspace was asked for before anybody knew the pointers: it serves both.
      known = aligned ? choose(p, pass, kAlignment, options_.workspace_cap)
                      : choose(p, pass, static_cast<std::uint32_t>(size_of(p.dtype)),
                               choice(p, pass, true).workspace);
    }
    return *known;
  }

  std::unique_ptr<Choice> choose(const LinearProblem& p, Pass pass, std::uint32_t alignment,
                                 std::int64_t workspace_cap) const {
    const Product wanted(p, pass);
    const cudaDataType_t type = data_type(p.dtype);
    const bool tf32 = p.dtype == DType::f32 && options_.tf32;
    auto choice = std::make_unique<Choice>();
    NF_CUDA_CHECK(cublas().cublasLtMatmulDescCreate(
        &choice->product, tf32 ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F, CUDA_R_32F));
    NF_CUDA_CHECK(
        cublas().cublasLtMatmulDescSetAttribute(choice->product, CUBLASLT_MATMUL_DESC_TRANSA,
                                                &wanted.transpose_a, sizeof(wanted.transpose_a)));
    NF_CUDA_CHECK(
        cublas().cublasLtMatmulDescSetAttribute(choice->product, CUBLASLT_MATMUL_DESC_TRANSB,
                                                &wanted.transpose_b, sizeof(wanted.transpose_b)));
    const auto layout = [&](cublasLtMatrixLayout_t* made, std::int64_t rows, std::int64_t columns) {
      NF_CUDA_CHECK(cublas().cublasLtMatrixLayoutCreate(
          made, type, static_cast<std::uint64_t>(rows), static_cast<std::uint64_t>(columns), rows));
    };
    layout(&choice->a, wanted.a_rows, wanted.a_columns);
    layout(&choice->b, wanted.b_rows, wanted.b_columns);
    layout(&choice->c, wanted.m, wanted.n);

    cublasLtMatmulPreference_t preference = nullptr;
    NF_CUDA_CHECK(cublas().cublasLtMatmulPreferenceCreate(&preference));
    const std::unique_ptr<cublasLtMatmulPreferenceOpaque_t, void (*)(cublasLtMatmulPreference_t)>
        owner(preference,
              [](cublasLtMatmulPreference_t p) { cublas().cublasLtMatmulPreferenceDestroy(p); });
    const auto cap = static_cast<std::uint64_t>(workspace_cap);
    NF_CUDA_CHECK(cublas().cublasLtMatmulPreferenceSetAttribute(
        preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &cap, sizeof(cap)));
    for (const auto operand :
         {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
          CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES})
      NF_CUDA_CHECK(cublas().cublasLtMatmulPreferenceSetAttribute(preference, operand, &alignment,
                                                                  sizeof(alignment)));
    cublasLtMatmulHeuristicResult_t found{};
    int count = 0;
    NF_CUDA_CHECK(cublas().cublasLtMatmulAlgoGetHeuristic(handle_, choice->product, choice->a,
                                                          choice->b, choice->c, choice->c,
                                                          preference, 1, &found, &count));
    NF_CHECK(count > 0, "linear: cuBLAS has no algorithm for {} [{},{}] x [{},{}]^T",
             to_string(p.dtype), p.n, p.i, p.o, p.i);
    choice->algorithm = found.algo;
    choice->workspace = static_cast<std::int64_t>(found.workspaceSize);
    return choice;
  }

  cudaStream_t stream_;
  cublasLtHandle_t handle_;
  ProductOptions options_;
  std::mutex mutex_;
  std::map<Key, std::unique_ptr<Choice>> choices_;
};

Products::Products(const CublasHandle& handle, cudaStream_t stream, const ProductOptions& options)
    : implementation_(std::make_unique<Implementation>(handle, stream, options)) {}

Products::~Products() = default;

std::int64_t Products::workspace(const LinearProblem& problem, Pass pass, GradMode) const {
  return implementation_->workspace(problem, pass);
}

void Products::forward(const LinearProblem& problem, const void* x, const void* w, void* y,
                       Workspace workspace) const {
  implementation_->multiply(problem, Pass::forward, w, x, y, GradMode::overwrite, workspace);
}

void Products::backward_input(const LinearProblem& problem, const void* dy, const void* w, void* dx,
                              GradMode mode, Workspace workspace) const {
  implementation_->multiply(problem, Pass::backward_input, w, dy, dx, mode, workspace);
}

void Products::backward_weight(const LinearProblem& problem, const void* x, const void* dy,
                               void* dw, GradMode mode, Workspace workspace) const {
  implementation_->multiply(problem, Pass::backward_weight, x, dy, dw, mode, workspace);
}

}  // namespace nf::cuda
