// kernels/simt.h for nvcc. Only simt.h includes it.
#pragma once

#include <cuda_runtime.h>

#include <string>

/// A kernel whose blocks have at most `threads` threads.
#define NF_KERNEL(threads) __global__ void __launch_bounds__(threads)
#define NF_DEVICE __device__ __forceinline__
/// NF_SHARED(float, tile, [32][33]): an array of the block, aligned for 16-byte accesses. The
/// dimensions may be empty.
#define NF_SHARED(type, name, dimensions) __shared__ __align__(16) type name dimensions
/// Declares `type* name`, the dynamic shared memory that the launch asked for.
#define NF_DYNAMIC_SHARED(type, name)                           \
  extern __shared__ __align__(16) unsigned char name##_bytes[]; \
  type* const name = reinterpret_cast<type*>(name##_bytes)

namespace nf::cuda {

/// Starts `kernel`, called `name` in messages. Throws KernelError where the launch is refused.
template <typename... Parameters, typename... Arguments>
void launch(const char* name, void (*kernel)(Parameters...), Extent grid, Extent block,
            std::int64_t shared_bytes, Stream stream, const Arguments&... arguments) {
  const dim3 blocks(static_cast<unsigned>(grid.x), static_cast<unsigned>(grid.y),
                    static_cast<unsigned>(grid.z));
  const dim3 threads(static_cast<unsigned>(block.x), static_cast<unsigned>(block.y),
                     static_cast<unsigned>(block.z));
  kernel<<<blocks, threads, static_cast<std::size_t>(shared_bytes),
           static_cast<cudaStream_t>(stream)>>>(static_cast<Parameters>(arguments)...);
  const cudaError_t status = cudaGetLastError();
  if (status != cudaSuccess)
    throw KernelError(std::string(name) + "<<<(" + std::to_string(grid.x) + ", " +
                      std::to_string(grid.y) + ", " + std::to_string(grid.z) + "), (" +
                      std::to_string(block.x) + ", " + std::to_string(block.y) + ", " +
                      std::to_string(block.z) + "), " + std::to_string(shared_bytes) +
                      ">>>: " + cudaGetErrorString(status));
}

}  // namespace nf::cuda
