#include "engine/device.h"

#include <charconv>

#include "engine/error.h"

namespace nf {

std::string to_string(Device device) {
  const char* kind = device.kind == DeviceKind::cpu ? "cpu" : "meta";
  return device.index == 0 ? kind : fmt::format("{}:{}", kind, device.index);
}

Device parse_device(std::string_view text) {
  const std::size_t colon = text.find(':');
  const std::string_view kind = text.substr(0, colon);
  Device device;
  if (kind == "meta")
    device.kind = DeviceKind::meta;
  else
    NF_CHECK(kind == "cpu", "device: '{}' is not known here; known: cpu, meta", text);
  if (colon != std::string_view::npos) {
    const std::string_view digits = text.substr(colon + 1);
    const auto [end, status] =
        std::from_chars(digits.data(), digits.data() + digits.size(), device.index);
    NF_CHECK(status == std::errc{} && end == digits.data() + digits.size() && device.index == 0,
             "device: '{}' has no device of that index, only {}:0", text, kind);
  }
  return device;
}

}  // namespace nf
