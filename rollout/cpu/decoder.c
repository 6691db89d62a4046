/* The forward pass of a Qwen2 for one new token of each row of a batch, in float32 on one thread, over vLLM's weights
   and its paged cache. The batch is held in panels of TILE of its rows, [features, TILE]: norms, rotations and
   products run over rows of the batch, weights are used as they lie, and what a panel needs stays in the cache. */

#include "attention.h"

struct layer {
    const float *input_norm, *qkv, *qkv_bias, *out, *post_norm, *gate_up, *down; /* weights [out, in] */
    float *cache;                                                               /* [blocks, key heads, (keys, values)] */
};

struct model {
    const struct layer *layers;
    const float *norm;   /* the last one */
    const float *angles; /* [positions, width]: cosines, then sines, of half a head's features */
    long count, hidden, intermediate, block_stride, size;
    struct heads heads;
    float epsilon;
};

struct step {
    struct rows rows;
    long count;             /* of rows */
    const long *positions;  /* [count] */
    const long *slots;      /* [count]: where in the cache the new tokens belong, in tokens */
    float *hidden;          /* [count, hidden]: embeddings, and then the result */
};

/* to = x w / sqrt(mean(x^2) + epsilon), of each column of a panel [features, TILE]. */
static void rms_norm(const float *x, const float *w, long features, float epsilon, float *to)
{
    for (long t = 0; t < TILE; t += LANES) {
        vec sum = {0}, scale = {0};
        for (long f = 0; f < features; f++) {
            const vec value = load(x + f * TILE + t);
            sum += value * value;
        }
        for (int lane = 0; lane < LANES; lane++)
            scale[lane] = 1.0f / sqrtf(sum[lane] / features + epsilon);
        for (long f = 0; f < features; f++)
            store(to + f * TILE + t, load(x + f * TILE + t) * scale * w[f]);
    }
}

/* y = w x + bias, of panels x [depth, TILE] and y [features, TILE]; without a bias y += w x. */
static void linear(const float *w, const float *bias, long features, long depth, const float *x, float *y)
{
    if (bias)
        for (long f = 0; f < features; f++)
            for (long r = 0; r < TILE; r++)
                y[f * TILE + r] = bias[f];
    products(features, w, depth, x, TILE, depth, y, TILE, 1);
}

/* Turns each of `heads` heads of a panel [heads * width, TILE] by its columns' angles [width, TILE]. */
static void rope(float *x, long heads, long width, const float *angles)
{
    const long half = width / 2 * TILE;
    for (; heads; heads--, x += 2 * half)
        for (long i = 0; i < half; i += LANES) {
            const vec a = load(x + i), b = load(x + half + i), cosine = load(angles + i), sine = load(angles + half + i);
            store(x + i, a * cosine - b * sine);
            store(x + half + i, b * cosine + a * sine);
        }
}

/* gate = gate / (1 + e^-gate) * up, `count` of each. */
static void silu_and_mul(float *gate, const float *up, long count)
{
    for (long i = 0; i < count; i += LANES) {
        const vec x = load(gate + i), e = exponential(-maximum(x, -x));
        const vec above = (vec)(((ivec)x & (x >= 0)) | ((ivec)(x * e) & (x < 0)));
        store(gate + i, above / (1.0f + e) * load(up + i));
    }
}

/* Puts `count` columns of new keys and values [2 * key heads * width, TILE] into the cache. */
static void write_cache(const struct model *m, const float *keys, const long *slots, long count, float *cache)
{
    const long width = m->heads.width, size = m->size;
    const float *values = keys + m->heads.keys * width * TILE;
    for (long r = 0; r < count; r++) {
        float *block = cache + slots[r] / size * m->block_stride;
        const long token = slots[r] % size;
        for (long f = 0; f < m->heads.keys * width; f++) {
            float *head = block + f / width * 2 * size * width;
            head[f % width * size + token] = keys[f * TILE + r];
            head[(size + token) * width + f % width] = values[f * TILE + r];
        }
    }
}

/* Returns 0, or 1 without memory. */
int decode(const struct model *m, const struct step *s)
{
    const long hidden = m->hidden, intermediate = m->intermediate, width = m->heads.width, panels = (s->count + TILE - 1) / TILE;
    const long of_query = m->heads.queries * width, projected = of_query + 2 * m->heads.keys * width;
    const long kept = hidden + projected + width, passing = hidden + 2 * intermediate;
    const long floats = (panels * kept + passing) * TILE + attention_scratch(m->heads, &s->rows);
    float *all = aligned_alloc(sizeof(vec), (floats / LANES + 1) * sizeof(vec));
    if (!all)
        return 1;
    float *xs = all, *qkv = xs + panels * hidden * TILE, *angles = qkv + panels * projected * TILE;
    float *normed = angles + panels * width * TILE, *gate = normed + hidden * TILE, *scratch = gate + 2 * intermediate * TILE;
    for (long c = 0; c < panels * TILE; c++) {
        const long row = c < s->count ? c : 0; /* columns of no row have the first one's inputs */
        for (long f = 0; f < hidden; f++)
            xs[place(c, hidden) + f * TILE] = s->hidden[row * hidden + f];
        for (long f = 0; f < width; f++)
            angles[place(c, width) + f * TILE] = m->angles[s->positions[row] * width + f];
    }
    for (const struct layer *layer = m->layers; layer < m->layers + m->count; layer++) {
        for (long p = 0; p < panels; p++) {
            const float *x = xs + p * hidden * TILE;
            float *query = qkv + p * projected * TILE, *key = query + of_query * TILE;
            const long held = s->count - p * TILE < TILE ? s->count - p * TILE : TILE;
            rms_norm(x, layer->input_norm, hidden, m->epsilon, normed);
            linear(layer->qkv, layer->qkv_bias, projected, hidden, normed, query);
            rope(query, m->heads.queries + m->heads.keys, width, angles + p * width * TILE);
            write_cache(m, key, s->slots + p * TILE, held, layer->cache);
        }
        const struct cache cache = {layer->cache, m->block_stride, m->size, width};
        attend(m->heads, &s->rows, qkv, projected, cache, scratch);
        for (long p = 0; p < panels; p++) {
            float *x = xs + p * hidden * TILE;
            linear(layer->out, NULL, hidden, of_query, qkv + p * projected * TILE, x);
            rms_norm(x, layer->post_norm, hidden, m->epsilon, normed);
            memset(gate, 0, 2 * intermediate * TILE * sizeof(float));
            linear(layer->gate_up, NULL, 2 * intermediate, hidden, normed, gate);
            silu_and_mul(gate, gate + intermediate * TILE, intermediate * TILE);
            linear(layer->down, NULL, hidden, intermediate, gate, x);
        }
    }
    for (long p = 0; p < panels; p++)
        rms_norm(xs + p * hidden * TILE, m->norm, hidden, m->epsilon, xs + p * hidden * TILE);
    for (long r = 0; r < s->count; r++)
        for (long f = 0; f < hidden; f++)
            s->hidden[r * hidden + f] = xs[place(r, hidden) + f * TILE];
    free(all);
    return 0;
}
