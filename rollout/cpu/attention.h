/* Attention of one new token for each row of a batch over vLLM's paged cache of keys and values. Rows that begin with
   the same blocks, as completions of one prompt do, attend to these together: a block's keys meet the queries of all of
   them while they lie in the cache of the core. What follows is each row's own. The two parts are merged by their
   normalisers, as flash attention merges blocks (Dao et al. 2022, section 3.1). */

#include "vectors.h"

enum { CHUNK = 32 }; /* queries that share what is read of the cache */

/* Blocks of `size` tokens, each with keys [width, size] and values [size, width] for every head. */
struct cache {
    const float *head; /* of block 0 */
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
            for (int v = 0; v < VECS; v++)
                lanes[q] = maximum(lanes[q], load(row + v * LANES));
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
            for (int v = 0; v < VECS; v++) {
                const vec weights = exponential(load(row + v * LANES) - highest[q]);
                store(row + v * LANES, weights);
                lanes[q] += weights;
            }
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

/* The rows of a batch and their blocks. */
struct rows {
    const int *table;   /* [rows, table_stride]: each row's blocks */
    const int *lengths; /* [rows]: tokens of each row, the new one included */
    const long *order;  /* [rows]: rows, group by group */
    const long *starts; /* [groups + 1]: where groups begin in `order` */
    const long *shared; /* [groups]: blocks at the start of all rows of a group, whose contents are equal */
    long groups, table_stride;
    long longest; /* tokens that the blocks of the longest row have room for */
};

struct heads {
    long queries, keys; /* heads of each */
    long width;
    float scaling;
};

/* Floats that `attend` needs. */
static long attention_scratch(struct heads heads, const struct rows *rows)
{
    return CHUNK * (rows->longest + 3 * heads.width + 4);
}

/* Of panels [features, TILE] that hold a row of the batch in each column: where this one's first feature is. */
INLINE long place(long row, long features) { return row / TILE * TILE * features + row % TILE; }

/* Replaces the queries that panels [features, TILE] begin with by what they attend to. `cache` is [blocks, key heads,
   (keys, values)]. */
static void attend(struct heads heads, const struct rows *b, float *panels, long features, struct cache cache,
                   float *scratch)
{
    const long repeats = heads.queries / heads.keys, width = heads.width;
    const long at_once = repeats < CHUNK ? CHUNK / repeats : 1;
    float *scores = scratch, *queries = scores + CHUNK * b->longest, *summed = queries + CHUNK * width;
    float *own = summed + CHUNK * width, *highest = own + CHUNK * width, *total = highest + CHUNK;
    float *own_highest = total + CHUNK, *own_total = own_highest + CHUNK;
    for (long g = 0; g < b->groups; g++) {
        const long *group = b->order + b->starts[g], members = b->starts[g + 1] - b->starts[g];
        const long prefix = b->shared[g] * cache.size;
        for (long head = 0; head < heads.keys; head++) {
            struct cache of_head = cache;
            of_head.head += head * 2 * cache.size * width;
            for (long begin = 0; begin < members; begin += at_once) {
                const long taken = members - begin < at_once ? members - begin : at_once;
                for (long i = 0; i < taken * repeats; i++) {
                    const long of_query = (head * repeats + i % repeats) * width;
                    const float *from = panels + place(group[begin + i / repeats], features) + of_query * TILE;
                    for (long d = 0; d < width; d++)
                        queries[i * width + d] = from[d * TILE] * heads.scaling;
                }
                attend_to(queries, taken * repeats, of_head, b->table + group[begin] * b->table_stride, prefix, scores,
                          b->longest, highest, total, summed);
                for (long i = 0; i < taken; i++) {
                    const long row = group[begin + i];
                    attend_to(queries + i * repeats * width, repeats, of_head,
                              b->table + row * b->table_stride + b->shared[g], b->lengths[row] - prefix, scores,
                              b->longest, own_highest, own_total, own);
                    for (long r = 0; r < repeats; r++) {
                        const long q = i * repeats + r;
                        const float top = fmaxf(highest[q], own_highest[r]);
                        const float first = expf(highest[q] - top), second = expf(own_highest[r] - top);
                        const float whole = first * total[q] + second * own_total[r];
                        float *to = panels + place(row, features) + (head * repeats + r) * width * TILE;
                        for (long d = 0; d < width; d++)
                            to[d * TILE] = (first * summed[q * width + d] + second * own[r * width + d]) / whole;
                    }
                }
            }
        }
    }
}
