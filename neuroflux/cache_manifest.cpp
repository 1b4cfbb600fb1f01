#include "neuroflux/cache_manifest.h"

#include <algorithm>
#include <bit>
#include <charconv>
#include <nlohmann/json.hpp>
#include <string_view>
#include <system_error>

#include "engine/atomic_file.h"
#include "engine/error.h"
#include "neuroflux/checksum.h"
#include "neuroflux/disk_file.h"

namespace nf {
namespace {

using nlohmann::json;

static_assert(std::endian::native == std::endian::little, "the files hold little-endian values");

constexpr const char* kFormat = "neuroflux activation cache";
constexpr int kVersion = 2;
constexpr const char* kOrder = "as in the data set";  // of samples in chunks
constexpr std::int64_t kBlock = 4096;
// All fields but the name and the chunk checksums, at their longest, take less than 700 bytes.
constexpr std::int64_t kManifestFields = 1024;
constexpr std::int64_t kHexDigits = 16;

std::int64_t product(const CacheSpec& spec, std::int64_t a, std::int64_t b) {
  std::int64_t result = 0;
  // Half the range leaves room for rounding up to blocks and for sums of a few such figures.
  NF_CHECK(!__builtin_mul_overflow(a, b, &result) && result < (std::int64_t{1} << 61),
           "activation cache '{}': {} samples of {} {} take more bytes than can be addressed",
           spec.name, spec.count, spec.sample_shape.str(), to_string(spec.dtype));
  return result;
}

void check_name(const std::string& name) {
  constexpr std::string_view kAllowed =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-";
  NF_CHECK(!name.empty() && name.find_first_not_of(kAllowed) == std::string::npos,
           "activation cache: name '{}' is not made of letters, digits, '.', '_' and '-'", name);
}

std::int64_t to_blocks(std::int64_t bytes) { return (bytes + kBlock - 1) / kBlock * kBlock; }

std::uint64_t from_hex(const json& field) {
  const auto& text = field.get_ref<const std::string&>();
  std::uint64_t value = 0;
  const char* end = text.data() + text.size();
  const auto [stop, code] = std::from_chars(text.data(), end, value, 16);
  if (code != std::errc{} || stop != end || text.size() != kHexDigits)
    fail_data("'{}' is not a checksum of {} hexadecimal digits", text, kHexDigits);
  return value;
}

CacheManifest from_json(json fields) {
  if (fields.at("format") != kFormat || fields.at("version") != kVersion)
    fail_data("format {} version {} where \"{}\" version {} is read", fields.at("format").dump(),
              fields.at("version").dump(), kFormat, kVersion);
  const std::uint64_t stated = from_hex(fields.at("checksum"));
  fields.erase("checksum");
  const std::uint64_t found = hash_text(fields.dump());
  if (found != stated)
    fail_data("its fields have checksum {}, it says {}", to_hex(found), to_hex(stated));

  CacheManifest manifest;
  CacheSpec& spec = manifest.spec;
  spec.name = fields.at("name").get<std::string>();
  spec.count = fields.at("count").get<std::int64_t>();
  spec.sample_shape = Shape(fields.at("sample_shape").get<std::vector<std::int64_t>>());
  spec.dtype = parse_dtype(fields.at("dtype").get_ref<const std::string&>());
  spec.chunk_bytes = fields.at("chunk_bytes").get<std::int64_t>();
  spec.provenance = from_hex(fields.at("provenance"));
  manifest.labels_checksum = from_hex(fields.at("labels_checksum"));
  for (const json& checksum : fields.at("chunk_checksums"))
    manifest.chunk_checksums.push_back(from_hex(checksum));
  const CacheLayout layout = cache_layout(spec);
  if (fields.at("order") != kOrder)
    fail_data("order {} where \"{}\" is read", fields.at("order").dump(), kOrder);
  if (fields.at("samples_per_chunk") != layout.samples_per_chunk)
    fail_data("chunks of {} samples where {} are read", fields.at("samples_per_chunk").dump(),
              layout.samples_per_chunk);
  const auto listed = static_cast<std::int64_t>(manifest.chunk_checksums.size());
  if (listed != layout.chunks)
    fail_data("it lists {} chunks, {} samples take {}", listed, spec.count, layout.chunks);
  return manifest;
}

}  // namespace

std::int64_t CacheLayout::samples(std::int64_t chunk) const {
  return std::min(samples_per_chunk, count - first_sample(chunk));
}

CacheLayout cache_layout(const CacheSpec& spec) {
  check_name(spec.name);
  NF_CHECK(spec.count >= 1, "activation cache '{}': {} samples, at least 1 expected", spec.name,
           spec.count);
  NF_CHECK(spec.sample_shape.rank() == 3 && spec.sample_shape.numel() >= 1,
           "activation cache '{}': sample shape {} is not (H, W, C), each at least 1", spec.name,
           spec.sample_shape.str());
  NF_CHECK(spec.dtype == DType::f32 || spec.dtype == DType::bf16 || spec.dtype == DType::f16,
           "activation cache '{}': dtype {} is not one of f32, bf16, f16", spec.name,
           to_string(spec.dtype));
  NF_CHECK(spec.chunk_bytes >= 1, "activation cache '{}': chunks of {} bytes, at least 1 expected",
           spec.name, spec.chunk_bytes);

  CacheLayout layout;
  layout.count = spec.count;
  layout.sample_values = spec.sample_shape.numel();
  layout.sample_bytes = product(spec, layout.sample_values, size_of(spec.dtype));
  // Rounded up, which is less than twice the bytes wanted unless a sample alone is more.
  layout.samples_per_chunk = std::min((spec.chunk_bytes - 1) / layout.sample_bytes + 1, spec.count);
  layout.chunks = (spec.count - 1) / layout.samples_per_chunk + 1;
  layout.chunk_stride = to_blocks(product(spec, layout.samples_per_chunk, layout.sample_bytes));
  layout.data_bytes = product(spec, layout.chunks - 1, layout.chunk_stride) +
                      to_blocks(layout.payload(layout.chunks - 1));
  layout.label_bytes = product(spec, spec.count, size_of(DType::i32));
  return layout;
}

std::int64_t cache_bytes(const CacheSpec& spec) {
  const CacheLayout layout = cache_layout(spec);
  // A checksum comes with two quotes and a comma.
  const std::int64_t manifest = kManifestFields + static_cast<std::int64_t>(spec.name.size()) +
                                product(spec, layout.chunks, kHexDigits + 3);
  return layout.data_bytes + to_blocks(layout.label_bytes) + to_blocks(manifest);
}

CacheFiles cache_files(const std::filesystem::path& folder, const std::string& name) {
  return {folder / (name + ".data"), folder / (name + ".labels"), folder / (name + ".json")};
}

void remove_cache(const std::filesystem::path& folder, const std::string& name) {
  check_name(name);
  const CacheFiles files = cache_files(folder, name);
  std::filesystem::path unfinished = files.manifest;
  unfinished += ".tmp";
  for (const auto& path : {files.manifest, unfinished, files.data, files.labels}) {
    std::error_code code;
    std::filesystem::remove(path, code);
    // A folder that isn't one holds no cache either.
    NF_CHECK(!code || code == std::errc::not_a_directory,
             "activation cache '{}': cannot remove {}: {}", name, path.string(), code.message());
  }
}

void write_manifest(const std::filesystem::path& path, const CacheManifest& manifest) {
  const CacheSpec& spec = manifest.spec;
  json checksums = json::array();
  for (const std::uint64_t checksum : manifest.chunk_checksums)
    checksums.push_back(to_hex(checksum));
  const auto extents = spec.sample_shape.extents();
  json fields = {
      {"format", kFormat},
      {"version", kVersion},
      {"name", spec.name},
      {"count", spec.count},
      {"sample_shape", std::vector<std::int64_t>(extents.begin(), extents.end())},
      {"dtype", to_string(spec.dtype)},
      {"chunk_bytes", spec.chunk_bytes},
      {"samples_per_chunk", cache_layout(spec).samples_per_chunk},
      {"order", kOrder},
      {"provenance", to_hex(spec.provenance)},
      {"labels_checksum", to_hex(manifest.labels_checksum)},
      {"chunk_checksums", std::move(checksums)},
  };
  fields["checksum"] = to_hex(hash_text(fields.dump()));
  replace_file(path, fields.dump());
}

CacheManifest read_manifest(const std::filesystem::path& path) {
  const std::string text = read_file(path);
  try {
    return from_json(json::parse(text));
  } catch (const json::parse_error& error) {
    fail_data("activation cache: manifest {} is damaged: not JSON at byte {} of {}", path.string(),
              error.byte, text.size());
  } catch (const json::exception& error) {
    fail_data("activation cache: manifest {} is damaged: {}", path.string(), error.what());
  } catch (const Error& error) {
    fail_data("activation cache: manifest {} is damaged: {}", path.string(), error.what());
  }
}

}  // namespace nf
