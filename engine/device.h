// Which device a tensor lives on.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace nf {

/// simt: the GPU's kernels on the emulator; meta: computes nothing.
enum class DeviceKind : std::uint8_t { cpu, simt, cuda, meta };

struct Device {
  DeviceKind kind = DeviceKind::cpu;
  int index = 0;
  bool operator==(const Device&) const = default;
};

/// "cpu", "simt", "cuda", "meta", each with an optional ":index", which only cuda has beyond 0.
std::string to_string(Device device);
/// Throws Error naming the value and the known devices.
Device parse_device(std::string_view text);

}  // namespace nf
