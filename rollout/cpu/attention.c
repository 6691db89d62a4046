/* Attention of one new token for each row of a batch over vLLM's paged cache of keys and values, in float32 on one
   thread. Rows that begin with the same blocks, as completions of one prompt do, attend to these together: a block's
   keys meet the queries of all of them while they lie in the cache of the core. What follows is each row's own. The two
   parts are merged by their normalisers, as flash attention merges blocks (Dao et al. 2022, section 3.1). Vectors are
   GCC's, which Clang has as well. */

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef float vec __attribute__((vector_size(64), aligned(4), may_alias));
typedef int ivec __attribute__((vector_size(64), aligned(4), may_alias));

enum {
    LANES = 16,
    TILE = 32,   /* tokens or values that are computed at a time */
    CHUNK = 32,  /* queries that share what is read of the cache */
};
static const float LOWEST = -3.0e38f;

#define INLINE static inline __attribute__((always_inline))

INLINE vec load(const float *from) { return *(const vec *)from; }
INLINE void store(float *to, vec value) { *(vec *)to = value; }
INLINE vec larger(vec a, vec b)
{
    const ivec of_a = a > b;
    return (vec)(((ivec)a & of_a) | ((ivec)b & ~of_a));
}

/* c [rows, TILE] = a [rows, depth] b [depth, TILE], or that added to c. */
INLINE void product(const int rows, const float *a, long a_stride, const float *b, long b_stride, long depth, float *c,
                    long c_stride, const int add)
{
    vec left[8], right[8];
    for (int r = 0; r < rows; r++) {
        left[r] = add ? load(c + r * c_stride) : (vec){0};
        right[r] = add ? load(c + r * c_stride + LANES) : (vec){0};
    }
    for (long d = 0; d < depth; d++) {
        const vec first = load(b + d * b_stride), second = load(b + d * b_stride + LANES);
        for (int r = 0; r < rows; r++) {
            left[r] += a[r * a_stride + d] * first;
            right[r] += a[r * a_stride + d] * second;
        }
    }
    for (int r = 0; r < rows; r++) {
        store(c + r * c_stride, left[r]);
        store(c + r * c_stride + LANES, right[r]);
    }
}

/* The same for any number of rows. */
INLINE void products(long rows, const float *a, long a_stride, const float *b, long b_stride, long depth, float *c,
                     long c_stride, const int add)
{
    for (; rows >= 8; rows -= 8, a += 8 * a_stride, c += 8 * c_stride)
        product(8, a, a_stride, b, b_stride, depth, c, c_stride, add);
    for (; rows >= 2; rows -= 2, a += 2 * a_stride, c += 2 * c_stride)
        product(2, a, a_stride, b, b_stride, depth, c, c_stride, add);
    if (rows)
        product(1, a, a_stride, b, b_stride, depth, c, c_stride, add);
}

/* e^x for x <= 0: 2^n e^r with the polynomial of Cephes' expf (Moshier). */
INLINE vec exponential(vec x)
{
    x = larger(x, (vec){0} - 87.0f);
    const vec scaled = x * 1.44269504f - 0.5f;
    const ivec n = __builtin_convertvector(scaled, ivec); /* towards zero: rounds x log2(e) */
    const vec r = x - __builtin_convertvector(n, vec) * 0.693147181f;
    vec p = r * 1.9875691500e-4f + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    return p * (vec)((n + 127) << 23);
}

/* One head's cache, and where its blocks begin. */
struct cache {
    const float *head;
    long block_stride, size, width;
};

/* `count` <= CHUNK queries [count, width] over the first `tokens` tokens of `blocks`: the highest score of each, the sum
   of exponentials, and the sum of values by them [count, width]. `scores` has room for [count, stride]. */
static void attend_to(const float *queries, long count, struct cache cache, const int *blocks, long tokens, float *scores,
                      long stride, float *highest, float *total, float *summed)
{
    vec lanes[CHUNK];
    for (long q = 0; q < count; q++)
        lanes[q] = (vec){0} + LOWEST;
    for (long t = 0; t < tokens; t += TILE) {
        const float *keys = cache.head + blocks[t / cache.size] * cache.block_stride + t % cache.size;
        products(count, queries, cache.width, keys, cache.size, cache.width, scores + t, stride, 0);
        for (long q = 0; q < count; q++) {
            float *row = scores + q * stride + t;
            for (long j = tokens - t; j < TILE; j++)
                row[j] = LOWEST;
            lanes[q] = larger(lanes[q], larger(load(row), load(row + LANES)));
        }
    }
    for (long q = 0; q < count; q++) {
        highest[q] = LOWEST;
        for (int lane = 0; lane < LANES; lane++)
            highest[q] = lanes[q][lane] > highest[q] ? lanes[q][lane] : highest[q];
        lanes[q] = (vec){0};
    }
    memset(summed, 0, count * cache.width * sizeof(float));
    for (long t = 0; t < tokens; t += TILE) {
        for (long q = 0; q < count; q++) {
            float *row = scores + q * stride + t;
            const vec first = exponential(load(row) - highest[q]), second = exponential(load(row + LANES) - highest[q]);
            store(row, first);
            store(row + LANES, second);
            lanes[q] += first + second;
        }
        const float *block = cache.head + blocks[t / cache.size] * cache.block_stride;
        const float *values = block + (cache.size + t % cache.size) * cache.width;
        const long held = tokens - t < TILE ? tokens - t : TILE;
        for (long d = 0; d < cache.width; d += TILE)
            products(count, scores + t, stride, values + d, cache.width, held, summed + d, cache.width, 1);
    }
    for (long q = 0; q < count; q++) {
        total[q] = 0;
        for (int lane = 0; lane < LANES; lane++)
            total[q] += lanes[q][lane];
    }
}

struct batch {
    const float *query;          /* [rows, heads, width] */
    float *output;               /* the same */
    const float *cache;          /* [blocks, key_heads, (keys [width, size], values [size, width])] */
    const int *table;            /* [rows, table_stride]: each row's blocks */
    const int *lengths;          /* [rows]: tokens of each row */
    const long *order;           /* [rows]: rows, group by group */
    const long *starts;          /* [groups + 1]: where groups begin in `order` */
    const long *shared;          /* [groups]: blocks that all rows of a group begin with */
    long groups, heads, key_heads, width, size;
    long longest; /* tokens of the longest row, and those that its last block has room for */
    long query_stride, output_stride, table_stride, block_stride;
    float scaling;
};

/* Returns 0, or 1 without memory. */
int attend(const struct batch *b)
{
    const long repeats = b->heads / b->key_heads, width = b->width, stride = b->longest;
    float *scratch = aligned_alloc(sizeof(vec), CHUNK * (stride + 3 * width + 4) * sizeof(float));
    if (!scratch)
        return 1;
    float *scores = scratch, *queries = scores + CHUNK * stride, *summed = queries + CHUNK * width;
    float *own = summed + CHUNK * width, *highest = own + CHUNK * width, *total = highest + CHUNK;
    float *own_highest = total + CHUNK, *own_total = own_highest + CHUNK;
    for (long g = 0; g < b->groups; g++) {
        const long *rows = b->order + b->starts[g], members = b->starts[g + 1] - b->starts[g];
        const long prefix = b->shared[g] * b->size, at_once = repeats < CHUNK ? CHUNK / repeats : 1;
        for (long head = 0; head < b->key_heads; head++) {
            const struct cache cache = {b->cache + head * 2 * b->size * width, b->block_stride, b->size, width};
            for (long begin = 0; begin < members; begin += at_once) {
                const long taken = members - begin < at_once ? members - begin : at_once;
                for (long i = 0; i < taken * repeats; i++) {
                    const long row = rows[begin + i / repeats], q = head * repeats + i % repeats;
                    for (long d = 0; d < width; d++)
                        queries[i * width + d] = b->query[row * b->query_stride + q * width + d] * b->scaling;
                }
                attend_to(queries, taken * repeats, cache, b->table + rows[begin] * b->table_stride, prefix, scores, stride,
                          highest, total, summed);
                for (long i = 0; i < taken; i++) {
                    const long row = rows[begin + i];
                    attend_to(queries + i * repeats * width, repeats, cache,
                              b->table + row * b->table_stride + b->shared[g], b->lengths[row] - prefix, scores, stride,
                              own_highest, own_total, own);
                    for (long r = 0; r < repeats; r++) {
                        const long q = i * repeats + r;
                        const float top = fmaxf(highest[q], own_highest[r]);
                        const float first = expf(highest[q] - top), second = expf(own_highest[r] - top);
                        const float whole = first * total[q] + second * own_total[r];
                        float *to = b->output + row * b->output_stride + (head * repeats + r) * width;
                        for (long d = 0; d < width; d++)
                            to[d] = (first * summed[q * width + d] + second * own[r * width + d]) / whole;
                    }
                }
            }
        }
    }
    free(scratch);
    return 0;
}
