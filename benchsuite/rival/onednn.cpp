// The linear layers of crates/gmflow/benches/networks.rs (group "linear") with oneDNN: a matmul with a bias whose weights lie as the library
// likes them best.
//
//     g++ -O2 -std=c++17 benchsuite/rival/onednn.cpp -o target/onednn -ldnnl && OMP_NUM_THREADS=2 target/onednn
//
// Prints for every precision and size the fastest and the median of 50 calls in microseconds. Tokens come in f32 and results leave in f32, as
// they do here: rounding them to bf16 or int8 (one scale for all, the least work there is) counts.

#include <dnnl.hpp>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <exception>
#include <vector>

using namespace dnnl;
using type = memory::data_type;
using tag = memory::format_tag;

static void run(const engine &cpu, stream &queue, const char *name, type left, type right, memory::dim m, memory::dim k, memory::dim n) {
    const memory::desc plain_x({m, k}, type::f32, tag::ab), plain_w({k, n}, type::f32, tag::ba);
    const memory::desc bias_desc({1, n}, type::f32, tag::ab), out_desc({m, n}, type::f32, tag::ab);
    const memory::desc x_desc({m, k}, left, tag::ab), w_desc({k, n}, right, tag::any);
    const matmul::primitive_desc product({x_desc, w_desc, bias_desc, out_desc}, cpu);

    memory x(plain_x, cpu), w(plain_w, cpu), bias(bias_desc, cpu), out(out_desc, cpu);
    memory rounded(x_desc, cpu), packed(product.weights_desc(), cpu);
    auto fill = [](memory &where, size_t count) {
        auto *values = static_cast<float *>(where.get_data_handle());
        for (size_t i = 0; i < count; i++) values[i] = float((i * 7919 + 13) % 1013) / 500 - 1;
    };
    fill(x, m * k), fill(w, k * n), fill(bias, n);

    primitive_attr scaled;
    if (left != type::f32 && left != type::bf16) scaled.set_output_scales(0, {100.0f});
    reorder(w, packed, scaled).execute(queue, w, packed);
    const reorder round(reorder::primitive_desc(x, rounded, scaled));
    const matmul multiply(product);
    memory &tokens = left == type::f32 ? x : rounded;
    std::vector<double> times;
    for (int call = 0; call < 60; call++) {
        const auto start = std::chrono::steady_clock::now();
        if (left != type::f32) round.execute(queue, x, rounded);
        multiply.execute(queue, {{DNNL_ARG_SRC, tokens}, {DNNL_ARG_WEIGHTS, packed}, {DNNL_ARG_BIAS, bias}, {DNNL_ARG_DST, out}});
        queue.wait();
        const std::chrono::duration<double, std::micro> taken = std::chrono::steady_clock::now() - start;
        if (call >= 10) times.push_back(taken.count());
    }
    std::sort(times.begin(), times.end());
    std::printf("%s/%ldx%ldx%ld %.0f %.0f %s\n", name, m, k, n, times.front(), times[times.size() / 2], product.impl_info_str());
}

int main() {
    const engine cpu(engine::kind::cpu, 0);
    stream queue(cpu);
    const memory::dim sizes[][3] = {{256, 1152, 1152}, {512, 1152, 1152}, {512, 1152, 4608}, {512, 4608, 1152}};
    const struct { const char *name; type left, right; } kinds[] = {
        {"f32", type::f32, type::f32}, {"bf16", type::bf16, type::bf16}, {"int8", type::u8, type::s8}};
    try {
        for (const auto &kind : kinds)
            for (const auto &size : sizes) run(cpu, queue, kind.name, kind.left, kind.right, size[0], size[1], size[2]);
    } catch (const std::exception &error) {
        std::fprintf(stderr, "%s\n", error.what());
        return 1;
    }
}
