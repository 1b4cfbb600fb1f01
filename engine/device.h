// Which device a tensor lives on.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace nf {

enum class DeviceKind : std::uint8_t { cpu, meta };

struct Device {
  DeviceKind kind = DeviceKind::cpu;
  int index = 0;
  bool operator==(const Device&) const = default;
};

/// "cpu", "meta", each with an optional ":index".
std::string to_string(Device device);
/// Throws Error naming the value and the known devices.
Device parse_device(std::string_view text);

}  // namespace nf
