// The storage queue by io_uring: the kernel works on all requests at once, without threads of ours.
#include "neuroflux/storage_queue.h"

#ifdef NF_URING

#include <liburing.h>

#include <cerrno>
#include <system_error>

#include "engine/error.h"

namespace nf {
namespace {

std::string reason(int code) { return std::generic_category().message(code); }

class UringQueue : public StorageQueue {
 public:
  /// Takes the ring over.
  UringQueue(std::int64_t depth, const io_uring& ring) : StorageQueue(depth), ring_(ring) {}
  ~UringQueue() override {
    drain();
    ::io_uring_queue_exit(&ring_);
  }

  StorageEngine engine() const override { return StorageEngine::uring; }

 private:
  void submit(StorageTransfer* transfer) override {
    io_uring_sqe* entry = ::io_uring_get_sqe(&ring_);
    // There are as many entries as requests may be in flight, and each call empties them.
    NF_CHECK(entry != nullptr, "storage queue: io_uring has no entry left");
    const auto offset = static_cast<__u64>(transfer->offset());
    if (transfer->kind() == StorageTransfer::Kind::read)
      ::io_uring_prep_read(entry, transfer->descriptor(), transfer->data(), transfer->size(),
                           offset);
    else
      ::io_uring_prep_write(entry, transfer->descriptor(), transfer->data(), transfer->size(),
                            offset);
    ::io_uring_sqe_set_data(entry, transfer);
    int sent = 0;
    do {
      sent = ::io_uring_submit(&ring_);
    } while (sent == -EINTR || sent == -EAGAIN || sent == -EBUSY);
    NF_CHECK(sent == 1, "storage queue: io_uring_submit sent {} of 1 request: {}", sent,
             sent < 0 ? reason(-sent) : "no reason given");
  }

  StorageTransfer* finished(bool wait) override {
    for (;;) {
      io_uring_cqe* completion = nullptr;
      const int status = wait ? ::io_uring_wait_cqe(&ring_, &completion)
                              : ::io_uring_peek_cqe(&ring_, &completion);
      if (status == -EAGAIN && !wait) return nullptr;
      if (status == -EINTR || status == -EAGAIN) continue;
      NF_CHECK(status == 0, "storage queue: io_uring gives no answer: {}", reason(-status));
      auto* transfer = static_cast<StorageTransfer*>(::io_uring_cqe_get_data(completion));
      const std::int64_t result = completion->res;
      ::io_uring_cqe_seen(&ring_, completion);
      if (transfer->answered(result)) return transfer;
      submit(transfer);
    }
  }

  io_uring ring_;
};

bool knows_read_and_write(io_uring& ring) {
  io_uring_probe* probe = ::io_uring_get_probe_ring(&ring);
  const bool known = probe != nullptr && ::io_uring_opcode_supported(probe, IORING_OP_READ) != 0 &&
                     ::io_uring_opcode_supported(probe, IORING_OP_WRITE) != 0;
  if (probe != nullptr) ::io_uring_free_probe(probe);
  return known;
}

}  // namespace

std::unique_ptr<StorageQueue> make_uring_queue(std::int64_t depth, std::string& refusal) {
  io_uring ring{};
  const int status = ::io_uring_queue_init(static_cast<unsigned>(depth), &ring, 0);
  if (status < 0) {
    refusal = "io_uring_queue_init: " + reason(-status);
    return nullptr;
  }
  if (!knows_read_and_write(ring)) {
    refusal = "this kernel's can't read and write plain buffers";
    ::io_uring_queue_exit(&ring);
    return nullptr;
  }
  return std::make_unique<UringQueue>(depth, ring);
}

}  // namespace nf

#else

namespace nf {

std::unique_ptr<StorageQueue> make_uring_queue(std::int64_t /*depth*/, std::string& refusal) {
  refusal = "this build is without liburing";
  return nullptr;
}

}  // namespace nf

#endif
