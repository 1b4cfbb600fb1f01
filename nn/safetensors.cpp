#include "nn/safetensors.h"

#include <algorithm>
#include <bit>
#include <cstdint>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

#include "engine/atomic_file.h"
#include "engine/error.h"
#include "kernels/half.h"

namespace nf::nn {
namespace {

static_assert(std::endian::native == std::endian::little, "values are written as they lie");

using Json = nlohmann::json;

constexpr std::int64_t kPrefixBytes = 8;
// The format's own limit.
constexpr std::uint64_t kMaxHeaderBytes = 100'000'000;

/// dst (outer, columns, rows) from src (outer, rows, columns).
void transpose_inner(const float* src, float* dst, std::int64_t outer, std::int64_t rows,
                     std::int64_t columns) {
  for (std::int64_t o = 0; o < outer; ++o, src += rows * columns, dst += rows * columns)
    for (std::int64_t r = 0; r < rows; ++r)
      for (std::int64_t c = 0; c < columns; ++c) dst[c * rows + r] = src[r * columns + c];
}

Shape file_shape(const Shape& s) { return s.rank() == 4 ? Shape{s[0], s[3], s[1], s[2]} : s; }
Shape engine_shape(const Shape& s) { return s.rank() == 4 ? Shape{s[0], s[2], s[3], s[1]} : s; }

/// Values of `tensor` in the file's order.
std::vector<float> file_values(const HostTensor& tensor) {
  const Shape& s = tensor.shape;
  if (s.rank() != 4) return tensor.values;
  std::vector<float> values(tensor.values.size());
  transpose_inner(tensor.values.data(), values.data(), s[0], s[1] * s[2], s[3]);
  return values;
}

std::string make_header(const std::filesystem::path& path, const std::vector<NamedTensor>& tensors,
                        const std::map<std::string, std::string>& metadata) {
  Json header = Json::object();
  if (!metadata.empty()) header["__metadata__"] = metadata;
  std::int64_t offset = 0;
  for (const NamedTensor& named : tensors) {
    const std::string& name = named.name;
    const HostTensor& tensor = *named.tensor;
    NF_CHECK(name != "__metadata__", "{}: a tensor must not be named {}", path.string(), name);
    NF_CHECK(std::cmp_equal(tensor.values.size(), tensor.shape.numel()),
             "{}: tensor {} {} must have {} values, got {}", path.string(), name,
             tensor.shape.str(), tensor.shape.numel(), tensor.values.size());
    const std::int64_t end = offset + static_cast<std::int64_t>(tensor.values.size()) * 4;
    const Shape shape = file_shape(tensor.shape);
    header[name] = {
        {"dtype", "F32"},
        {"shape", std::vector<std::int64_t>(shape.extents().begin(), shape.extents().end())},
        {"data_offsets", {offset, end}}};
    offset = end;
  }
  std::string text;
  try {
    text = header.dump();
  } catch (const Json::exception&) {
    fail("{}: names and metadata must be UTF-8", path.string());
  }
  // Spaces bring the values to a multiple of eight bytes.
  text.append((8 - text.size() % 8) % 8, ' ');
  return text;
}

/// One tensor as the header describes it.
struct Entry {
  std::string name;
  std::string dtype;
  Shape shape;  // the file's
  std::int64_t begin = 0, end = 0;
};

std::int64_t bytes_of(std::string_view dtype) {
  if (dtype == "F32") return 4;
  if (dtype == "F16" || dtype == "BF16") return 2;
  return 0;
}

/// On one line, whatever it holds.
std::string one_line(const std::string& name) { return Json(name).dump(); }

/// Reads one file; the path is in every message.
class Reader {
 public:
  explicit Reader(const std::filesystem::path& path) : path_(path.string()) {
    std::error_code error;
    if (!std::filesystem::is_regular_file(path, error)) reject("it must be a file that exists");
    file_.open(path, std::ios::binary);
    if (!file_) reject("it must be readable");
    size_ = static_cast<std::int64_t>(std::filesystem::file_size(path, error));
    if (error) reject("its size can't be read");
  }

  Weights read() {
    const std::string text = read_header();
    // The callback sees every key; the parsed object alone would hide one that comes twice.
    std::vector<std::string> names;
    const auto watch = [&](int depth, Json::parse_event_t event, Json& value) {
      if (event == Json::parse_event_t::key && depth == 1) names.push_back(value);
      if (depth > 8) reject("the header must not be nested");
      return true;
    };
    Json header;
    try {
      header = Json::parse(text, watch);
    } catch (const Json::exception&) {
      reject("the header must be valid JSON");
    }
    if (!header.is_object()) reject("the header must be a JSON object");
    std::sort(names.begin(), names.end());
    const auto twice = std::adjacent_find(names.begin(), names.end());
    if (twice != names.end()) reject("a name must come once, got {} twice", one_line(*twice));

    Weights weights;
    std::vector<Entry> entries;
    for (const auto& [name, value] : header.items()) {
      if (name == "__metadata__")
        weights.metadata = parse_metadata(value);
      else
        entries.push_back(parse_entry(name, value));
    }
    check_layout(entries);
    for (const Entry& entry : entries)
      if (!is_counter(entry)) weights.tensors[entry.name] = read_tensor(entry);
    return weights;
  }

 private:
  template <typename... Args>
  [[noreturn]] void reject(fmt::format_string<Args...> rule, Args&&... args) const {
    fail_data("{}: {}", path_, fmt::format(rule, std::forward<Args>(args)...));
  }

  static bool is_counter(const Entry& entry) {
    return entry.dtype == "I64" && entry.name.ends_with("num_batches_tracked");
  }

  void read_bytes(std::int64_t offset, void* data, std::int64_t bytes) {
    file_.seekg(offset);
    file_.read(static_cast<char*>(data), bytes);
    if (!file_ || file_.gcount() != bytes) reject("{} bytes at {} can't be read", bytes, offset);
  }

  std::string read_header() {
    if (size_ < kPrefixBytes) reject("a file must have at least 8 bytes, got {}", size_);
    std::uint64_t length = 0;
    read_bytes(0, &length, kPrefixBytes);
    if (length < 2 || length > kMaxHeaderBytes ||
        std::cmp_greater(length, static_cast<std::uint64_t>(size_ - kPrefixBytes)))
      reject("the header's length must be 2 to {} and within the file of {} bytes, got {}",
             kMaxHeaderBytes, size_, length);
    std::string text(length, '\0');
    read_bytes(kPrefixBytes, text.data(), static_cast<std::int64_t>(length));
    data_begin_ = kPrefixBytes + static_cast<std::int64_t>(length);
    return text;
  }

  std::map<std::string, std::string> parse_metadata(const Json& value) const {
    if (!value.is_object()) reject("__metadata__ must be an object");
    std::map<std::string, std::string> result;
    for (const auto& [key, text] : value.items()) {
      if (!text.is_string()) reject("__metadata__ must hold strings, {} is not one", one_line(key));
      result[key] = text.get<std::string>();
    }
    return result;
  }

  /// A list of whole numbers from 0 to 2^63 - 1.
  std::vector<std::int64_t> parse_numbers(const std::string& label, const Json& value,
                                          const char* field) const {
    const auto found = value.find(field);
    if (found == value.end() || !found->is_array())
      reject("tensor {} must have a list {}", label, field);
    std::vector<std::int64_t> numbers;
    for (const Json& item : *found) {
      constexpr std::uint64_t kMost = std::numeric_limits<std::int64_t>::max();
      if (!item.is_number_unsigned() || item.get<std::uint64_t>() > kMost)
        reject("tensor {}: {} must hold whole numbers from 0, got {}", label, field, item.dump());
      numbers.push_back(item.get<std::int64_t>());
    }
    return numbers;
  }

  Entry parse_entry(const std::string& name, const Json& value) const {
    const std::string label = one_line(name);
    if (!value.is_object()) reject("tensor {} must be an object", label);
    Entry entry;
    entry.name = name;
    const auto dtype = value.find("dtype");
    if (dtype == value.end() || !dtype->is_string()) reject("tensor {} must have a dtype", label);
    entry.dtype = dtype->get<std::string>();
    const std::vector<std::int64_t> extents = parse_numbers(label, value, "shape");
    const std::vector<std::int64_t> offsets = parse_numbers(label, value, "data_offsets");
    if (extents.size() > Shape::kMaxRank)
      reject("tensor {} must have at most {} dimensions, got {}", label, Shape::kMaxRank,
             extents.size());
    entry.shape = Shape(extents);
    if (offsets.size() != 2 || offsets[0] > offsets[1] || offsets[1] > size_ - data_begin_)
      reject("tensor {}: data_offsets must be a range within {} bytes, got {}", label,
             size_ - data_begin_, value["data_offsets"].dump());
    entry.begin = offsets[0];
    entry.end = offsets[1];
    if (is_counter(entry)) return entry;
    const std::int64_t width = bytes_of(entry.dtype);
    if (width == 0)
      reject("tensor {} must be F32, F16 or BF16, got {}", label, one_line(entry.dtype));
    std::int64_t bytes = width;
    for (const std::int64_t extent : extents)
      if (__builtin_mul_overflow(bytes, extent, &bytes))
        reject("tensor {} {} is too large", label, entry.shape.str());
    if (bytes != entry.end - entry.begin)
      reject("tensor {} {} of {} takes {} bytes, data_offsets give {}", label, entry.shape.str(),
             entry.dtype, bytes, entry.end - entry.begin);
    return entry;
  }

  /// Tensors must fill the file without holes and without overlap.
  void check_layout(std::vector<Entry>& entries) const {
    std::sort(entries.begin(), entries.end(), [](const Entry& a, const Entry& b) {
      return std::pair(a.begin, a.end) < std::pair(b.begin, b.end);
    });
    std::int64_t expected = 0;
    for (const Entry& entry : entries) {
      if (entry.begin != expected)
        reject("tensor {} must begin at {}, where the one before it ends, got {}",
               one_line(entry.name), expected, entry.begin);
      expected = entry.end;
    }
    if (expected != size_ - data_begin_)
      reject("the values must end with the file at {}, got {}", size_ - data_begin_, expected);
  }

  HostTensor read_tensor(const Entry& entry) {
    const auto count = static_cast<std::size_t>(entry.shape.numel());
    std::vector<float> values(count);
    if (entry.dtype == "F32") {
      read_bytes(data_begin_ + entry.begin, values.data(), entry.end - entry.begin);
    } else {
      std::vector<std::uint16_t> halves(count);
      read_bytes(data_begin_ + entry.begin, halves.data(), entry.end - entry.begin);
      const bool f16 = entry.dtype == "F16";
      std::transform(halves.begin(), halves.end(), values.begin(), [&](std::uint16_t half) {
        return f16 ? f16_to_float(half) : bf16_to_float(half);
      });
    }
    const Shape& s = entry.shape;
    if (s.rank() != 4) return {s, std::move(values)};
    HostTensor result{engine_shape(s), std::vector<float>(count)};
    transpose_inner(values.data(), result.values.data(), s[0], s[1], s[2] * s[3]);
    return result;
  }

  std::string path_;
  std::ifstream file_;
  std::int64_t size_ = 0;
  std::int64_t data_begin_ = 0;
};

}  // namespace

void write_safetensors(const std::filesystem::path& path, const std::vector<NamedTensor>& tensors,
                       const std::map<std::string, std::string>& metadata) {
  const std::string header = make_header(path, tensors, metadata);
  AtomicFile file(path);
  const std::uint64_t length = header.size();
  file.write(&length, kPrefixBytes);
  file.write(header.data(), header.size());
  for (const NamedTensor& named : tensors) {
    const std::vector<float> values = file_values(*named.tensor);
    file.write(values.data(), values.size() * sizeof(float));
  }
  file.commit();
}

void write_safetensors(const std::filesystem::path& path, const Weights& weights) {
  std::vector<NamedTensor> tensors;
  for (const auto& [name, tensor] : weights.tensors) tensors.push_back({name, &tensor});
  write_safetensors(path, tensors, weights.metadata);
}

Weights read_safetensors(const std::filesystem::path& path) { return Reader(path).read(); }

}  // namespace nf::nn
