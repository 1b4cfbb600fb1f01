#include "engine/backend.h"

#include "engine/error.h"

namespace nf {

void Backend::begin_capture() { fail("{}: calls can't be captured on this device", name()); }

std::unique_ptr<CapturedCalls> Backend::end_capture() {
  fail("{}: calls can't be captured on this device", name());
}

}  // namespace nf
