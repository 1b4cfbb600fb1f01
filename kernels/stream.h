// The queue of a device that a launcher puts its kernels on.
#pragma once

namespace nf {

/// A cudaStream_t (null: the default stream). The emulator runs at once and ignores it.
using Stream = void*;

}  // namespace nf
