// Runs one operator's kernels on the CPU (emulation.h): emulate DIRECTORY key=value...
// Reads every tensor from a file of raw numbers in DIRECTORY named like the argument, and writes
// the results there. test_kernels.py says which keys and files each operator takes.
#include <fstream>
#include <map>
#include <memory>
#include <string>

#include "cuda/overlap_weights.cuh"
#include "cuda/pairwise_overlap.cuh"
#include "cuda/similarity_loss.cuh"
#include "cuda/similarity_loss_double.cuh"
#include "cuda/uncertainty_weights.cuh"
#include "cuda/uncertainty_weights_double.cuh"

namespace {

using namespace d2_ssod;

struct NoStream {};

class Case {
 public:
  Case(int count, char** words) : directory_(words[1]) {
    for (int i = 2; i < count; ++i) {
      const std::string word = words[i];
      const size_t sign = word.find('=');
      values_[word.substr(0, sign)] = word.substr(sign + 1);
    }
    emulation::random_engine().seed(static_cast<unsigned>(integer("seed")));
  }

  std::string text(const std::string& key) const { return values_.at(key); }
  int64_t integer(const std::string& key) const { return std::stoll(text(key)); }
  double number(const std::string& key) const { return std::stod(text(key)); }

  // The numbers of a file; null if there is none.
  template <typename T>
  T* input(const std::string& name) {
    std::ifstream file(directory_ + "/" + name, std::ios::binary);
    if (!file) return nullptr;
    const std::string bytes((std::istreambuf_iterator<char>(file)), {});
    T* data = memory<T>(bytes.size() / sizeof(T));
    if (data != nullptr) std::memcpy(data, bytes.data(), bytes.size());
    return data;
  }

  // Memory full of NaN, or of -1; null if it is to hold nothing, as torch's allocators have it.
  template <typename T>
  T* memory(int64_t count) {
    if (count == 0) return nullptr;
    memory_.push_back(
        std::make_unique<emulation::GuardedMemory>(sizeof(T) * static_cast<size_t>(count)));
    std::memset(memory_.back()->data(), 0xff, sizeof(T) * static_cast<size_t>(count));
    return reinterpret_cast<T*>(memory_.back()->data());
  }

  template <typename T>
  T* output(const std::string& name, int64_t count) {
    T* data = memory<T>(count);
    outputs_.push_back(
        {name, reinterpret_cast<const char*>(data), sizeof(T) * static_cast<size_t>(count)});
    return data;
  }

  void write_outputs() const {
    for (const Output& out : outputs_) {
      std::ofstream(directory_ + "/" + out.name, std::ios::binary)
          .write(out.data, static_cast<std::streamsize>(out.bytes));
    }
  }

 private:
  struct Output {
    std::string name;
    const char* data;
    size_t bytes;
  };
  std::string directory_;
  std::map<std::string, std::string> values_;
  std::vector<std::unique_ptr<emulation::GuardedMemory>> memory_;
  std::vector<Output> outputs_;
};

template <typename T>
void run_pairwise_overlap(Case& c) {
  const int64_t rows = c.integer("rows"), cols = c.integer("cols");
  const T *boxes1 = c.input<T>("boxes1"), *boxes2 = c.input<T>("boxes2");
  T* result = c.output<T>("result", rows * cols);
  if (c.text("operator") == "pairwise_iou") {
    launch_pairwise_overlap<IouOf>(boxes1, boxes2, result, rows, cols, NoStream());
  } else {
    launch_pairwise_overlap<IofOf>(boxes1, boxes2, result, rows, cols, NoStream());
  }
}

template <typename T>
WeightCurve<T> weight_curve(const Case& c) {
  return {T(c.number("a")), T(c.number("b")), T(c.number("c_iou")), T(c.number("c_sim"))};
}

template <typename T>
void run_overlap_weights(Case& c) {
  const int64_t images = c.integer("images"), rows = c.integer("rows");
  const auto *offsets = c.input<int64_t>("offsets"), *gt_offsets = c.input<int64_t>("gt_offsets");
  OverlapParameters<T> p{};
  p.boxes = c.input<T>("boxes");
  p.is_foreground = c.input<bool>("is_foreground");
  p.has_ground_truth = gt_offsets != nullptr;
  p.gt_boxes = c.input<T>("gt_boxes");
  p.weights = c.output<T>("weights", rows);
  p.curve = weight_curve<T>(c);
  int* order = c.memory<int>(rows);
  int* num_foreground = c.memory<int>(images);
  for (int64_t first = 0; first < images; first += kImagesPerLaunch) {
    p.rois = make_image_table(offsets, images, first);
    if (gt_offsets != nullptr) p.gts = make_image_table(gt_offsets, images, first);
    p.foreground = {order, num_foreground + first};
    launch_overlap_weights(p, NoStream());
  }
}

UnitVectors unit_vectors(Case& c, int64_t rows, int64_t dimensions, int parts) {
  const int64_t pitch = unit_vector_pitch(dimensions);
  return {c.memory<__half>(rows * parts * pitch), c.memory<float>(rows), pitch};
}

template <int kParts, typename T>
void run_uncertainty_weights(Case& c) {
  using Tiles = UncertaintyTiles<kParts>;
  const int64_t images = c.integer("images"), rows = c.integer("rows"),
                dimensions = c.integer("dimensions");
  const auto *offsets = c.input<int64_t>("offsets"), *gt_offsets = c.input<int64_t>("gt_offsets");
  const T* embeddings = c.input<T>("embeddings");
  UncertaintyParameters p{};
  p.boxes = c.input<float>("boxes");
  p.is_foreground = c.input<bool>("is_foreground");
  p.released = gt_offsets != nullptr;
  p.gt_boxes = c.input<float>("gt_boxes");
  p.units = unit_vectors(c, rows, dimensions, kParts);
  p.arrivals = c.memory<int>(rows);
  p.hidden = p.released ? c.memory<float>(rows) : nullptr;
  p.weights = c.output<float>("weights", rows);
  p.max_iou = c.output<float>("max_iou", rows);
  p.dissimilarity = c.output<float>("dissimilarity", rows);
  p.curve = weight_curve<float>(c);
  int* order = c.memory<int>(rows);
  int* num_foreground = c.memory<int>(images);
  const std::string tile = c.text("tile");
  for (int64_t first = 0; first < images; first += kImagesPerLaunch) {
    p.rois = make_image_table(offsets, images, first);
    if (gt_offsets != nullptr) p.gts = make_image_table(gt_offsets, images, first);
    p.foreground = {order, num_foreground + first};
    if (p.rois.total() == 0 || tile == "auto") {
      launch_uncertainty_weights<kParts>(p, embeddings, dimensions, Tiling(), NoStream());
      continue;
    }
    launch_prepare_weights<kParts>(p, embeddings, dimensions, NoStream());
    const int64_t blocks = c.integer("blocks");
    if (tile == "large") launch_uncertainty_tiles<typename Tiles::Large>(p, blocks, NoStream());
    if (tile == "medium") launch_uncertainty_tiles<typename Tiles::Medium>(p, blocks, NoStream());
    if (tile == "small") launch_uncertainty_tiles<typename Tiles::Small>(p, blocks, NoStream());
  }
}

void run_uncertainty_weights_double(Case& c) {
  const int64_t images = c.integer("images"), rows = c.integer("rows");
  const auto *offsets = c.input<int64_t>("offsets"), *gt_offsets = c.input<int64_t>("gt_offsets");
  UncertaintyDoubleParameters p{};
  p.boxes = c.input<double>("boxes");
  p.embeddings = c.input<double>("embeddings");
  p.is_foreground = c.input<bool>("is_foreground");
  p.released = gt_offsets != nullptr;
  p.gt_boxes = c.input<double>("gt_boxes");
  p.dimensions = c.integer("dimensions");
  p.weights = c.output<double>("weights", rows);
  p.max_iou = c.output<double>("max_iou", rows);
  p.dissimilarity = c.output<double>("dissimilarity", rows);
  p.curve = weight_curve<double>(c);
  for (int64_t first = 0; first < images; first += kImagesPerLaunch) {
    p.rois = make_image_table(offsets, images, first);
    if (gt_offsets != nullptr) p.gts = make_image_table(gt_offsets, images, first);
    launch_uncertainty_weights_double(p, NoStream());
  }
}

template <int kParts, typename T>
void run_similarity_loss(Case& c) {
  const int64_t images = c.integer("images"), rows = c.integer("rows"),
                dimensions = c.integer("dimensions");
  const auto* offsets = c.input<int64_t>("offsets");
  const T* embeddings = c.input<T>("embeddings");
  int64_t largest = 0;
  for (int64_t i = 0; i < images; ++i) largest = std::max(largest, offsets[i + 1] - offsets[i]);
  const int64_t row_tiles = loss_row_tiles(largest);
  double* partial_loss = c.memory<double>(images * row_tiles);
  SimilarityLossParameters p{};
  p.boxes = c.input<float>("boxes");
  p.classes = c.input<int64_t>("classes");
  p.units = unit_vectors(c, rows, dimensions, kParts);
  p.inverse_norm = c.memory<float>(rows);
  p.gradient =
      c.integer("with_grad") != 0 ? c.output<float>("gradient", rows * dimensions) : nullptr;
  p.dimensions = dimensions;
  p.batch_images = images;
  p.iof_threshold = static_cast<float>(c.number("iof_threshold"));
  for (int64_t first = 0; first < images; first += kImagesPerLaunch) {
    p.rois = make_image_table(offsets, images, first);
    p.partial_loss = partial_loss + first * row_tiles;
    launch_similarity_loss<kParts>(p, embeddings, row_tiles, NoStream());
  }
  launch_sum(partial_loss, images * row_tiles, c.output<float>("loss", 1), NoStream());
}

void run_similarity_loss_double(Case& c) {
  const int64_t images = c.integer("images"), rows = c.integer("rows");
  const auto* offsets = c.input<int64_t>("offsets");
  SimilarityLossDoubleParameters p{};
  p.boxes = c.input<double>("boxes");
  p.embeddings = c.input<double>("embeddings");
  p.classes = c.input<int64_t>("classes");
  p.dimensions = c.integer("dimensions");
  p.gradient =
      c.integer("with_grad") != 0 ? c.output<double>("gradient", rows * p.dimensions) : nullptr;
  p.partial_loss = c.memory<double>(rows);
  p.batch_images = images;
  p.iof_threshold = c.number("iof_threshold");
  for (int64_t first = 0; first < images; first += kImagesPerLaunch) {
    p.rois = make_image_table(offsets, images, first);
    launch_similarity_loss_double(p, NoStream());
  }
  launch_sum(p.partial_loss, rows, c.output<double>("loss", 1), NoStream());
}

void run(Case& c) {
  const std::string name = c.text("operator"), dtype = c.text("dtype");
  if (name == "pairwise_iou" || name == "pairwise_iof") {
    dtype == "float64" ? run_pairwise_overlap<double>(c) : run_pairwise_overlap<float>(c);
  } else if (name == "overlap_weights") {
    dtype == "float64" ? run_overlap_weights<double>(c) : run_overlap_weights<float>(c);
  } else if (name == "uncertainty_weights") {
    if (dtype == "float64") run_uncertainty_weights_double(c);
    if (dtype == "float32") run_uncertainty_weights<2, float>(c);
    if (dtype == "tf32") run_uncertainty_weights<1, float>(c);
    if (dtype == "float16") run_uncertainty_weights<1, __half>(c);
    if (dtype == "bfloat16") run_uncertainty_weights<1, __nv_bfloat16>(c);
  } else if (name == "similarity_loss") {
    if (dtype == "float64") run_similarity_loss_double(c);
    if (dtype == "float32") run_similarity_loss<2, float>(c);
    if (dtype == "tf32") run_similarity_loss<1, float>(c);
    if (dtype == "float16") run_similarity_loss<1, __half>(c);
    if (dtype == "bfloat16") run_similarity_loss<1, __nv_bfloat16>(c);
  }
}

}  // namespace

int main(int count, char** words) {
  Case c(count, words);
  run(c);
  c.write_outputs();
}
