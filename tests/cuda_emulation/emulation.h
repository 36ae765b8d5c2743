#pragma once

// Runs CUDA kernels on the CPU, so that their logic can be tested where there is no GPU: the files
// of csrc/cuda, compiled by g++ with D2_SSOD_EMULATE_CUDA, get from here and from stubs/ all that
// is CUDA's.
//
// The threads of a block are fibers of one thread of the CPU; a few blocks take turns. A fiber
// runs until a barrier or an exchange within its warp, and what runs next is drawn by seed, with
// whole warps held back at times; copies into shared memory happen at once or as late as they may,
// also by seed; shared memory starts as NaN and ends at a page that may not be touched. So a
// missing barrier, a wrong index or a copy nobody waited for has a good chance to show. What it
// cannot show: anything about the hardware, its memory model, its rounding in matrix products, its
// speed, or a race between two barriers that does no harm in any of the orders tried.

#include <setjmp.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <numeric>
#include <random>
#include <type_traits>
#include <vector>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __grid_constant__
#define __launch_bounds__(...)

struct dim3 {
  unsigned x = 1, y = 1, z = 1;
  dim3() = default;
  explicit dim3(unsigned x_, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};

inline dim3 threadIdx, blockIdx, gridDim;

struct __half {
  uint16_t bits;
};
struct __nv_bfloat16 {
  uint16_t bits;
};

namespace emulation {

[[noreturn]] inline void fail(const char* what) {
  std::fprintf(stderr, "emulation: %s (block %u %u %u, thread %u)\n", what, blockIdx.x, blockIdx.y,
               blockIdx.z, threadIdx.x);
  std::abort();
}

inline std::mt19937& random_engine() {
  static std::mt19937 engine;
  return engine;
}

// Memory whose end is the end of a page, followed by one that may not be touched.
class GuardedMemory {
 public:
  explicit GuardedMemory(size_t bytes) {
    const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    const size_t used = (bytes + page - 1) / page * page;
    mapped_ = used + page;
    base_ = static_cast<char*>(mmap(nullptr, mapped_, PROT_READ | PROT_WRITE,
                                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
    if (base_ == MAP_FAILED || mprotect(base_ + used, page, PROT_NONE) != 0) fail("no memory");
    data_ = base_ + used - bytes;
  }
  GuardedMemory(const GuardedMemory&) = delete;
  GuardedMemory& operator=(const GuardedMemory&) = delete;
  ~GuardedMemory() { munmap(base_, mapped_); }
  char* data() const { return data_; }

 private:
  char *base_, *data_;
  size_t mapped_;
};

inline float half_to_float(uint16_t bits) {
  static const std::vector<float> table = [] {
    std::vector<float> values(65536);
    for (int i = 0; i < 65536; ++i) {
      const auto pattern = static_cast<uint16_t>(i);
      _Float16 value;
      std::memcpy(&value, &pattern, 2);
      values[static_cast<size_t>(i)] = static_cast<float>(value);
    }
    return values;
  }();
  return table[bits];
}

enum class Wait { kNone, kBlock, kShuffle, kLoad, kMultiply };

// What a lane shows the others of its warp.
struct Offer {
  uint64_t value;
  const __half* row;
  uint32_t a[4], b[2];
  double product[4];  // of the whole warp's a and b: this lane's elements
};

// The layout of mma.m16n8k16 in the PTX manual: lane 4g + t holds, in pairs of neighbouring k,
// a: (g, 2t), (g+8, 2t), (g, 2t+8), (g+8, 2t+8); b: (2t, g), (2t+8, g); of the product (g, 2t),
// (g, 2t+1), (g+8, 2t), (g+8, 2t+1).
inline void multiply_matrices(Offer* offers) {
  float a[16][16], b[8][16];
  for (int lane = 0; lane < 32; ++lane) {
    const int g = lane / 4, t = lane % 4;
    for (int high = 0; high < 2; ++high) {
      const auto bits = [&](uint32_t pair) { return static_cast<uint16_t>(pair >> 16 * high); };
      for (int r = 0; r < 4; ++r) {
        a[g + r % 2 * 8][2 * t + high + r / 2 * 8] = half_to_float(bits(offers[lane].a[r]));
      }
      for (int r = 0; r < 2; ++r) {
        b[g][2 * t + high + r * 8] = half_to_float(bits(offers[lane].b[r]));
      }
    }
  }
  for (int lane = 0; lane < 32; ++lane) {
    for (int e = 0; e < 4; ++e) {
      const float *row = a[lane / 4 + e / 2 * 8], *col = b[lane % 4 * 2 + e % 2];
      double sum = 0;
      for (int k = 0; k < 16; ++k) sum += static_cast<double>(row[k]) * col[k];
      offers[lane].product[e] = sum;
    }
  }
}

struct PendingCopy {
  void* to;
  const void* from;
  bool valid;
};

struct Fiber {
  ucontext_t start;
  jmp_buf state;
  bool started = false, done = false;
  bool runnable() const { return !done && wait == Wait::kNone; }
  Wait wait = Wait::kNone;
  unsigned exchanges = 0;  // of the warp so far: their parity picks the buffer of offers
  std::vector<std::vector<PendingCopy>> copies;  // committed groups, then the open one
};

struct Warp {
  int arrived = 0;
  Offer offers[2][32];
  int runnable = 32, priority = 0;
};

constexpr size_t kStackBytes = 128 * 1024;
constexpr int kMaxThreads = 512, kResidentBlocks = 3;

// Where a fiber returns to when it has to wait.
inline jmp_buf scheduler;

// A block that runs, with the memory of its threads.
class Block {
 public:
  // The one whose thread runs now.
  static Block*& running() {
    static Block* block = nullptr;
    return block;
  }

  void start(dim3 index, int threads, size_t shared_bytes, std::function<void()> body) {
    index_ = index;
    body_ = std::move(body);
    shared_ = std::make_unique<GuardedMemory>(shared_bytes);
    std::memset(shared_->data(), 0xff, shared_bytes);
    fibers_.clear();
    fibers_.resize(static_cast<size_t>(threads));
    for (Fiber& f : fibers_) f.copies.emplace_back();
    warps_.assign(static_cast<size_t>(threads / 32), Warp{});
    arrived_ = 0;
  }

  // Runs some threads for a while, each up to where it waits; says whether any is left.
  bool advance() {
    if (nap_ > 0) {
      --nap_;
      return true;
    }
    running() = this;
    blockIdx = index_;
    const unsigned turns = 1u << random_engine()() % 13;
    for (unsigned turn = 0; turn < turns; ++turn) {
      const int next = choose();
      if (next < 0) {
        for (const Fiber& f : fibers_) {
          if (!f.done) fail("threads wait for others that have ended or wait elsewhere");
        }
        return false;
      }
      resume(next);
      if (nap_ > 0) break;
    }
    return true;
  }

  // Where blocks exchange data: at times lets the others run far ahead.
  void maybe_nap() {
    if (random_engine()() % 32 != 0) return;
    nap_ = static_cast<int>(random_engine()() % 64);
    suspend();
  }

  char* shared() const { return shared_->data(); }
  int lane() const { return current_ % 32; }
  Fiber& fiber() { return fibers_[current_]; }

  void barrier() {
    wait_for(Wait::kBlock);
    if (++arrived_ == static_cast<int>(fibers_.size())) {
      arrived_ = 0;
      for (int i = 0; i < static_cast<int>(fibers_.size()); ++i) release(i);
    }
    suspend();
  }

  // Shows `offer` to the warp and returns those of all lanes, valid until the lane's next exchange
  // but one.
  const Offer* exchange(Wait kind, const Offer& offer) {
    Warp& own = warp();
    const int first = current_ / 32 * 32;
    const unsigned buffer = fiber().exchanges++ % 2;
    own.offers[buffer][lane()] = offer;
    wait_for(kind);
    if (++own.arrived == 32) {
      own.arrived = 0;
      for (int i = first; i < first + 32; ++i) {
        if (fibers_[i].wait != kind) fail("lanes of a warp do different things");
        release(i);
      }
      if (kind == Wait::kMultiply) multiply_matrices(own.offers[buffer]);
    }
    suspend();
    return own.offers[buffer];
  }

 private:
  Warp& warp() { return warps_[current_ / 32]; }

  // Any lane of the runnable warp of the highest priority, which may so run far ahead; -1 if none.
  int choose() {
    auto& random = random_engine();
    if (random() % 64 == 0) {
      for (Warp& w : warps_) w.priority = static_cast<int>(random() % 1024);
    }
    int best = -1;
    for (int w = 0; w < static_cast<int>(warps_.size()); ++w) {
      if (warps_[w].runnable == 0) continue;
      if (best < 0 || warps_[w].priority > warps_[best].priority) best = w;
    }
    if (best < 0) return -1;
    int lane = static_cast<int>(random() % 32);
    while (!fibers_[best * 32 + lane].runnable()) lane = (lane + 1) % 32;
    return best * 32 + lane;
  }

  void wait_for(Wait what) {
    fiber().wait = what;
    --warp().runnable;
  }

  void release(int index) {
    fibers_[index].wait = Wait::kNone;
    ++warps_[index / 32].runnable;
  }

  void suspend() {
    if (_setjmp(fiber().state) == 0) _longjmp(scheduler, 1);
  }

  static void enter() {
    Block& block = *running();
    block.body_();
    block.fiber().done = true;
    --block.warp().runnable;
    _longjmp(scheduler, 1);
  }

  void resume(int index) {
    current_ = index;
    threadIdx.x = static_cast<unsigned>(index);
    Fiber& next = fibers_[index];
    if (_setjmp(scheduler) != 0) return;
    if (next.started) _longjmp(next.state, 1);
    next.started = true;
    getcontext(&next.start);
    next.start.uc_stack.ss_sp = stacks_.data() + kStackBytes * static_cast<size_t>(index);
    next.start.uc_stack.ss_size = kStackBytes;
    next.start.uc_link = nullptr;
    makecontext(&next.start, &Block::enter, 0);
    setcontext(&next.start);
  }

  dim3 index_;
  std::function<void()> body_;
  std::unique_ptr<GuardedMemory> shared_;
  GuardedMemory stacks_{kStackBytes * kMaxThreads};
  std::vector<Fiber> fibers_;
  std::vector<Warp> warps_;
  int current_ = 0, arrived_ = 0, nap_ = 0;
};

template <typename Storage>
Storage& shared_storage() {
  return *reinterpret_cast<Storage*>(Block::running()->shared());
}

template <typename Stream, typename... Parameters, typename... Arguments>
void launch(void (*kernel)(Parameters...), dim3 grid, int threads, size_t shared_bytes, Stream,
            const Arguments&... arguments) {
  if (grid.x == 0 || grid.y == 0 || grid.z == 0) fail("empty grid");
  if (grid.y > 65535 || grid.z > 65535) fail("grid too large");
  if (threads % 32 != 0 || threads > kMaxThreads) fail("bad block size");
  if (shared_bytes > 99 * 1024) fail("more shared memory than the smallest card has");
  if ((sizeof(Arguments) + ... + 0) > 4096) fail("more parameters than fit");
  gridDim = grid;
  std::vector<uint64_t> waiting(static_cast<uint64_t>(grid.x) * grid.y * grid.z);
  std::iota(waiting.begin(), waiting.end(), 0);
  std::shuffle(waiting.begin(), waiting.end(), random_engine());
  const auto start_next = [&](Block* block) {
    const uint64_t index = waiting.back();
    waiting.pop_back();
    block->start(
        dim3(static_cast<unsigned>(index % grid.x), static_cast<unsigned>(index / grid.x % grid.y),
             static_cast<unsigned>(index / grid.x / grid.y)),
        threads, (shared_bytes + 15) / 16 * 16, [&] { kernel(arguments...); });
  };
  static std::vector<Block> resident(kResidentBlocks);
  std::vector<Block*> running;
  for (Block& block : resident) {
    if (waiting.empty()) break;
    start_next(&block);
    running.push_back(&block);
  }
  while (!running.empty()) {
    const size_t turn = random_engine()() % running.size();
    if (running[turn]->advance()) continue;
    if (waiting.empty()) {
      running.erase(running.begin() + static_cast<std::ptrdiff_t>(turn));
    } else {
      start_next(running[turn]);
    }
  }
}

// --- The instructions of csrc/cuda/common/primitives.cuh

inline void perform(const PendingCopy& copy) {
  if (copy.valid) {
    std::memcpy(copy.to, copy.from, 16);
  } else {
    std::memset(copy.to, 0, 16);
  }
}

inline void copy_async_16(void* shared, const void* global, bool valid = true) {
  if (reinterpret_cast<uintptr_t>(shared) % 16 != 0 ||
      reinterpret_cast<uintptr_t>(global) % 16 != 0) {
    fail("copy of 16 bytes is not aligned");
  }
  const PendingCopy copy{shared, global, valid};
  if (random_engine()() % 2 == 0) {
    perform(copy);
  } else {
    Block::running()->fiber().copies.back().push_back(copy);
  }
}

inline void copy_async_commit() { Block::running()->fiber().copies.emplace_back(); }

template <int kPending>
void copy_async_wait() {
  auto& copies = Block::running()->fiber().copies;  // the last group is still open
  while (copies.size() > kPending + 1) {
    for (const PendingCopy& copy : copies.front()) perform(copy);
    copies.erase(copies.begin());
  }
}

inline uint32_t pack(uint16_t low, uint16_t high) {
  return low | static_cast<uint32_t>(high) << 16;
}

template <bool kTransposed>
void load_matrices_as(uint32_t (&registers)[4], const __half* row) {
  if (reinterpret_cast<uintptr_t>(row) % 16 != 0) fail("row of a matrix is not aligned");
  Offer offer{};
  offer.row = row;
  const Offer* offers = Block::running()->exchange(Wait::kLoad, offer);
  const int lane = Block::running()->lane(), g = lane / 4, t = lane % 4;
  for (int m = 0; m < 4; ++m) {
    const Offer* rows = offers + 8 * m;
    registers[m] = kTransposed ? pack(rows[2 * t].row[g].bits, rows[2 * t + 1].row[g].bits)
                               : pack(rows[g].row[2 * t].bits, rows[g].row[2 * t + 1].bits);
  }
}

inline void load_matrices(uint32_t (&registers)[4], const __half* row) {
  load_matrices_as<false>(registers, row);
}
inline void load_matrices_transposed(uint32_t (&registers)[4], const __half* row) {
  load_matrices_as<true>(registers, row);
}

inline void multiply_add(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  Offer offer{};
  std::copy(a, a + 4, offer.a);
  offer.b[0] = b0;
  offer.b[1] = b1;
  const Offer& own = Block::running()->exchange(Wait::kMultiply, offer)[Block::running()->lane()];
  for (int e = 0; e < 4; ++e) c[e] = static_cast<float>(c[e] + own.product[e]);
}

template <typename T>
T shuffle(T value, int source) {
  static_assert(sizeof(T) <= 8);
  Offer offer{};
  std::memcpy(&offer.value, &value, sizeof(T));
  const Offer* offers = Block::running()->exchange(Wait::kShuffle, offer);
  std::memcpy(&value, &offers[source].value, sizeof(T));
  return value;
}

inline int own_lane() { return Block::running()->lane(); }

}  // namespace emulation

// --- What CUDA declares globally

inline void __syncthreads() { emulation::Block::running()->barrier(); }
inline void __threadfence() { emulation::Block::running()->maybe_nap(); }
template <typename T>
T __shfl_xor_sync(unsigned, T value, int mask) {
  return emulation::shuffle(value, emulation::own_lane() ^ mask);
}
template <typename T>
T __shfl_up_sync(unsigned, T value, int delta) {
  const int lane = emulation::own_lane();
  return emulation::shuffle(value, lane < delta ? lane : lane - delta);
}
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline float __ldcg(const float* pointer) { return *pointer; }
inline int atomicMax(int* stored, int x) {
  const int old = *stored;
  *stored = std::max(old, x);
  return old;
}
inline int atomicAdd(int* stored, int x) {
  const int old = *stored;
  *stored += x;
  return old;
}
inline int __float_as_int(float x) {
  int bits;
  std::memcpy(&bits, &x, 4);
  return bits;
}
inline float __int_as_float(int bits) {
  float x;
  std::memcpy(&x, &bits, 4);
  return x;
}
inline float __half2float(__half x) { return emulation::half_to_float(x.bits); }
inline __half __float2half_rn(float x) {
  const auto value = static_cast<_Float16>(x);
  __half result;
  std::memcpy(&result.bits, &value, 2);
  return result;
}
inline float __bfloat162float(__nv_bfloat16 x) {
  const uint32_t bits = static_cast<uint32_t>(x.bits) << 16;
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}
