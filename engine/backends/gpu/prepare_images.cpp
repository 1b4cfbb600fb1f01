#include "engine/backends/gpu/gpu_backend.h"
#include "engine/backends/gpu/typed.h"
#include "kernels/images.h"

namespace nf::NF_TARGET {

void GpuBackend::prepare_images(ConstView pixels, ConstView windows, ConstView tables, View out) {
  constexpr std::string_view kName = "prepare_images";
  static_assert(sizeof(ImageWindow) == 3 * sizeof(std::int32_t));
  const ImageBatch batch{.count = pixels.shape[0],
                         .height = pixels.shape[1],
                         .width = pixels.shape[2],
                         .channels = pixels.shape[3],
                         .out_height = out.shape[1],
                         .out_width = out.shape[2],
                         .table_per_channel = tables.shape[0] > 1};
  NF_TARGET::prepare_images(
      stream(), batch, elements<std::uint8_t>(kName, pixels),
      reinterpret_cast<const ImageWindow*>(elements<std::int32_t>(kName, windows)),
      elements<float>(kName, tables), elements<float>(kName, out));
}

}  // namespace nf::NF_TARGET
