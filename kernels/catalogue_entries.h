// How the catalogue's entries are written. Only catalogue*.cpp include it.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "kernels/catalogue.h"
#include "kernels/element.h"
#include "kernels/elementwise.h"
#include "kernels/random.h"

namespace nf::NF_TARGET {

/// Allocates an entry's operands, and fills them where their values steer a kernel.
class Operands {
 public:
  Operands(const Allocate& allocate, Stream stream) : allocate_(allocate), stream_(stream) {}

  template <typename T>
  T* filled(std::int64_t size, double value) {
    T* const operand = static_cast<T*>(allocate_(size * static_cast<std::int64_t>(sizeof(T))));
    fill(stream_, operand, size, value);
    return operand;
  }
  /// What is written before it is read, or read whatever it holds.
  template <typename T>
  T* zeros(std::int64_t size) {
    return filled<T>(size, 0);
  }
  template <typename T>
  T* ones(std::int64_t size) {
    return filled<T>(size, 1);
  }
  /// Uniform in [-1, 1), other values for each operand.
  template <typename T>
  T* random(std::int64_t size) {
    T* const operand = static_cast<T*>(allocate_(size * static_cast<std::int64_t>(sizeof(T))));
    fill_uniform(stream_, 0, number_++, operand, size, -1.0F, 1.0F);
    return operand;
  }
  void* workspace(std::int64_t bytes) { return allocate_(bytes); }
  Stream stream() const { return stream_; }

 private:
  const Allocate& allocate_;
  Stream stream_;
  std::uint64_t number_ = 0;
};

/// Bytes of an entry, in elements of T.
struct Traffic {
  std::int64_t read, written;
};

class EntryList {
 public:
  void start_family(std::string name) { family_ = std::move(name); }
  /// `prepare` allocates by the operands given and returns what launches.
  template <typename Prepare>
  void add(const char* launcher, std::string variant, Traffic bytes, const Prepare& prepare) {
    entries_.push_back({family_, launcher, std::move(variant), bytes.read, bytes.written,
                        [prepare](const Allocate& allocate, Stream stream) -> Launch {
                          Operands operands(allocate, stream);
                          return prepare(operands);
                        }});
  }
  std::vector<CatalogueEntry> take() { return std::move(entries_); }

 private:
  std::vector<CatalogueEntry> entries_;
  std::string family_;
};

/// Families of tensors (n, h, w, c): catalogue_maps.cpp.
template <typename T>
void add_maps(EntryList& list, const CatalogueSizes& sizes);

}  // namespace nf::NF_TARGET
