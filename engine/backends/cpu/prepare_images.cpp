#include "engine/backends/cpu/cpu_backend.h"
#include "engine/backends/cpu/parallel.h"

namespace nf::cpu {

void CpuBackend::prepare_images(ConstView pixels, ConstView windows, ConstView tables, View out) {
  const std::int64_t height = pixels.shape[1], width = pixels.shape[2], channels = pixels.shape[3];
  const std::int64_t out_height = out.shape[1], out_width = out.shape[2];
  const std::int64_t table_step = tables.shape[0] > 1 ? 256 : 0;
  const auto* stored = pixels.as<std::uint8_t>();
  const auto* shown = windows.as<ImageWindow>();
  const auto* values = tables.as<float>();
  auto* result = out.as<float>();
  const std::int64_t row_size = out_width * channels;
  const auto write_row = [=](std::int64_t n, std::int64_t y) {
    const ImageWindow& window = shown[n];
    float* row = result + (n * out_height + y) * row_size;
    const std::int64_t from = y + window.top;
    for (std::int64_t x = 0; x < out_width; ++x) {
      const std::int64_t column = (window.flip != 0 ? out_width - 1 - x : x) + window.left;
      const bool black = from < 0 || from >= height || column < 0 || column >= width;
      const std::uint8_t* pixel =
          black ? nullptr : stored + ((n * height + from) * width + column) * channels;
      for (std::int64_t c = 0; c < channels; ++c)
        row[x * channels + c] = values[c * table_step + (black ? 0 : pixel[c])];
    }
  };
  parallel_for(threads_, pixels.shape[0] * out_height, kGrain / row_size + 1,
               [=](std::int64_t begin, std::int64_t end, int) {
                 for (std::int64_t i = begin; i < end; ++i)
                   write_row(i / out_height, i % out_height);
               });
}

}  // namespace nf::cpu
