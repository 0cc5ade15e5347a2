// The rows of a tile: what is known of each, an array a field, so that a loop over lanes reads vectors.
#pragma once

namespace FUSED_ML_NAMESPACE {

constexpr int64_t kTileRows = 256;  // at most

template <class A>
struct LaneRows {
  using Class = typename Constants<A>::Bits;  // as wide as A, so that comparing classes selects lanes of A
  static constexpr Class kNoClass = ~Class{0};

  bool all_kept;
  Class own[kTileRows], peak_class[kTileRows];
  A keep[kTileRows];  // 1, or 0: ignored
  A own_weight[kTileRows], loss_scale[kTileRows], gradient_scale[kTileRows];
  A peak[kTileRows], own_input[kTileRows], own_term[kTileRows], own_rest[kTileRows];
  double others[kTileRows];  // and what float terms lose of them:
  A rest[kTileRows];
  double side[kTileRows], side_weight[kTileRows];
  A own_side_weight[kTileRows];
  A scale[kTileRows], offset[kTileRows], log_total[kTileRows], own_out[kTileRows], lse[kTileRows];
  double loss[kTileRows];

  // What chosen_at gives a row, a field at a time: what is the same for all rows once, before the first tile;
  void choose_constants(const RowwiseArguments& a) {
    all_kept = true;
    for (int64_t l = 0; l < kTileRows; ++l) {
      own[l] = kNoClass;
      keep[l] = own_weight[l] = loss_scale[l] = A(1);
      gradient_scale[l] = static_cast<A>(a.gradient_scale);
    }
  }
  // the others for a tile. The lanes behind its last row keep what they held.
  void choose(const RowwiseArguments& a, const TileRows& t) {
    if (a.target) {
      if (a.target_bytes == 8) read_targets(a, static_cast<const int64_t*>(a.target), t);
      if (a.target_bytes == 4) read_targets(a, static_cast<const int32_t*>(a.target), t);
      if (a.target_bytes == 1) read_targets(a, static_cast<const uint8_t*>(a.target), t);
    }
    const A* by_class = static_cast<const A*>(a.class_weight);
    const A* by_row = static_cast<const A*>(a.row_weight);
    const A* gradient = static_cast<const A*>(a.row_gradient);
    if (a.target && by_class) {
      for (int64_t l = 0; l < t.rows; ++l) own_weight[l] = own[l] == kNoClass ? A(1) : by_class[own[l]];
    }
    if (by_row) memcpy(loss_scale, by_row + t.row, t.rows * sizeof(A));
    if (by_row || gradient) {
      const A scale = static_cast<A>(a.gradient_scale);
      for (int64_t l = 0; l < t.rows; ++l) {
        gradient_scale[l] = scale * (gradient ? gradient[t.row + l] : A(1)) * loss_scale[l];
      }
    }
  }

  template <class Index>
  void read_targets(const RowwiseArguments& a, const Index* targets, const TileRows& t) {
    const uint64_t classes = static_cast<uint64_t>(a.classes);
    const int64_t ignore = a.ignore_index;
    int bad = 0, ignored = 0;
    for (int64_t l = 0; l < t.rows; ++l) {
      const int64_t chosen = static_cast<int64_t>(targets[t.row + l]);
      const bool counts = chosen != ignore, inside = static_cast<uint64_t>(chosen) < classes;
      own[l] = counts & inside ? static_cast<Class>(chosen) : kNoClass;
      keep[l] = counts & inside ? A(1) : A(0);
      bad |= static_cast<int>(counts & !inside);
      ignored |= static_cast<int>(!counts);
    }
    all_kept = !bad && !ignored;
    for (int64_t l = 0; bad && l < t.rows; ++l) chosen_at<A>(a, t.row + l);  // notes which one
  }
};

}  // namespace FUSED_ML_NAMESPACE
