#include "tests/tools/program.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <fstream>
#include <sstream>
#include <stdexcept>
#include <thread>

#include "nn/data/image_set.h"

namespace fs = std::filesystem;

namespace nf::test {
namespace {

constexpr const char* kOut = "stdout.txt";
constexpr const char* kErr = "stderr.txt";
// Sanitizers and busy machines are slow.
constexpr auto kPatience = std::chrono::minutes(5);

/// What waitid tells; whoever waits for the process next is told the same.
siginfo_t state_of(pid_t process, int options) {
  siginfo_t state{};
  int status = 0;
  do {
    status = waitid(P_PID, static_cast<id_t>(process), &state, options | WNOWAIT);
  } while (status != 0 && errno == EINTR);
  if (status != 0) throw std::runtime_error("can't wait");
  return state;
}

std::string big_endian(std::int64_t value) {
  std::string bytes;
  for (int shift = 24; shift >= 0; shift -= 8) bytes += static_cast<char>((value >> shift) & 0xff);
  return bytes;
}

void write_bytes(const fs::path& path, const std::string& bytes) {
  std::ofstream out(path, std::ios::binary);
  out << bytes;
  if (!out.flush()) throw std::runtime_error("can't write " + path.string());
}

void write_idx(const fs::path& folder, const std::string& prefix, const nn::ImageSet& set) {
  std::string images("\0\0\x08\x03", 4);
  images += big_endian(set.count) + big_endian(set.height) + big_endian(set.width);
  images.append(set.pixels.begin(), set.pixels.end());
  std::string labels("\0\0\x08\x01", 4);
  labels += big_endian(set.count);
  for (const std::int32_t label : set.labels) labels += static_cast<char>(label);
  write_bytes(folder / (prefix + "-images-idx3-ubyte"), images);
  write_bytes(folder / (prefix + "-labels-idx1-ubyte"), labels);
}

}  // namespace

Arguments operator+(Arguments first, const Arguments& second) {
  first.insert(first.end(), second.begin(), second.end());
  return first;
}

Workspace::Workspace() {
  std::string name = (fs::path(testing::TempDir()) / "neuroflux-XXXXXX").string();
  if (mkdtemp(name.data()) == nullptr) throw std::runtime_error("can't make " + name);
  path_ = name;
}

Workspace::~Workspace() {
  std::error_code ignored;
  fs::remove_all(path_, ignored);
}

fs::path Workspace::write(const std::string& name, const std::string& content) const {
  write_bytes(path_ / name, content);
  return path_ / name;
}

pid_t Workspace::start(const Arguments& arguments) const {
  std::string program = NF_PROGRAM;
  std::vector<std::string> copies = arguments;
  std::vector<char*> argv{program.data()};
  for (std::string& argument : copies) argv.push_back(argument.data());
  argv.push_back(nullptr);

  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addchdir_np(&actions, path_.c_str());
  constexpr int kCreate = O_WRONLY | O_CREAT | O_TRUNC;
  posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, kOut, kCreate, 0600);
  posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, kErr, kCreate, 0600);
  pid_t process = -1;
  const int status =
      posix_spawn(&process, program.c_str(), &actions, nullptr, argv.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  if (status != 0) throw std::runtime_error("can't start " + program);
  return process;
}

ProgramResult Workspace::finish(pid_t process) const {
  int status = 0;
  if (waitpid(process, &status, 0) != process) throw std::runtime_error("can't wait");
  ProgramResult result;
  result.exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  result.out = read_text(path_ / kOut);
  result.err = read_text(path_ / kErr);
  return result;
}

bool Workspace::wait_until(pid_t process, const std::function<bool()>& condition) const {
  const auto end = std::chrono::steady_clock::now() + kPatience;
  while (!condition()) {
    if (state_of(process, WEXITED | WNOHANG).si_pid == process) return false;
    if (std::chrono::steady_clock::now() > end) {
      kill(process, SIGKILL);
      throw std::runtime_error("what is awaited of the program does not come: " +
                               finish(process).err);
    }
    std::this_thread::yield();
  }
  return true;
}

bool Workspace::stop_when(pid_t process, const std::function<bool()>& condition) const {
  if (!wait_until(process, condition)) return false;
  kill(process, SIGSTOP);
  // It may end all the same, before the signal gets to it.
  return state_of(process, WEXITED | WSTOPPED).si_code == CLD_STOPPED;
}

ProgramResult Workspace::run(const Arguments& arguments) const { return finish(start(arguments)); }

std::string read_text(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  if (!in) throw std::runtime_error("can't read " + path.string());
  std::ostringstream text;
  text << in.rdbuf();
  return text.str();
}

std::vector<std::string> lines_of(const std::string& text) {
  std::istringstream in(text);
  std::vector<std::string> lines;
  for (std::string line; std::getline(in, line);) lines.push_back(line);
  return lines;
}

void write_idx_folder(const fs::path& folder, std::int64_t train, std::int64_t test,
                      std::int64_t size, std::int64_t classes) {
  fs::create_directories(folder);
  nn::GeneratedOptions options{
      .count = train, .height = size, .width = size, .channels = 1, .classes = classes};
  write_idx(folder, "train", nn::generate_images(options));
  options.count = test;
  options.stream = 1;
  write_idx(folder, "t10k", nn::generate_images(options));
}

}  // namespace nf::test
