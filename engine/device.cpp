#include "engine/device.h"

#include <array>
#include <charconv>

#include "engine/error.h"

namespace nf {
namespace {

constexpr std::array<const char*, 4> kKinds{"cpu", "simt", "cuda", "meta"};

}  // namespace

std::string to_string(Device device) {
  const char* kind = kKinds[static_cast<std::size_t>(device.kind)];
  return device.index == 0 ? kind : fmt::format("{}:{}", kind, device.index);
}

Device parse_device(std::string_view text) {
  const std::size_t colon = text.find(':');
  const std::string_view kind = text.substr(0, colon);
  Device device;
  std::size_t known = 0;
  while (known < kKinds.size() && kind != kKinds[known]) ++known;
  NF_CHECK(known < kKinds.size(), "device: '{}' is not known; known: cpu, simt, cuda, meta", text);
  device.kind = static_cast<DeviceKind>(known);
  if (colon != std::string_view::npos) {
    const std::string_view digits = text.substr(colon + 1);
    const auto [end, status] =
        std::from_chars(digits.data(), digits.data() + digits.size(), device.index);
    const bool number = status == std::errc{} && end == digits.data() + digits.size();
    NF_CHECK(number && device.index >= 0, "device: '{}' must end in a device's number", text);
    NF_CHECK(device.index == 0 || device.kind == DeviceKind::cuda,
             "device: '{}' has no device of that index, only {}:0", text, kind);
  }
  return device;
}

}  // namespace nf
