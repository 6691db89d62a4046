/* Vectors as wide as the machine's registers, and products of matrices by them. Vectors are GCC's, which Clang has as
   well; wider ones than the registers it takes apart, float by float. */

#include <math.h>
#include <stdlib.h>
#include <string.h>

#ifdef __AVX512F__
enum { BYTES = 64, BLOCK = 8 };
#else
enum { BYTES = 32, BLOCK = 2 };
#endif
typedef float vec __attribute__((vector_size(BYTES), aligned(4), may_alias));
typedef int ivec __attribute__((vector_size(BYTES), aligned(4), may_alias));

enum {
    LANES = BYTES / 4,
    TILE = 32,            /* columns of a product that are computed at a time; of its rows BLOCK: the registers hold them */
    VECS = TILE / LANES,
};
static const float LOWEST = -3.0e38f;

#define INLINE static inline __attribute__((always_inline))

INLINE vec load(const float *from) { return *(const vec *)from; }
INLINE void store(float *to, vec value) { *(vec *)to = value; }
/* Where `a` is not a number, neither is the result. */
INLINE vec maximum(vec a, vec b)
{
    const ivec of_b = b > a;
    return (vec)(((ivec)b & of_b) | ((ivec)a & ~of_b));
}

/* e^x for x <= 0: 2^n e^r with the polynomial of Cephes' expf (Moshier). */
INLINE vec exponential(vec x)
{
    x = maximum(x, (vec){0} - 87.0f);
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

/* c [rows, TILE] = a [rows, depth] b [depth, TILE], or that added to c. */
INLINE void product(const int rows, const float *a, long a_stride, const float *b, long b_stride, long depth, float *c,
                    long c_stride, const int add)
{
    vec sums[BLOCK][VECS];
    for (int r = 0; r < rows; r++)
        for (int v = 0; v < VECS; v++)
            sums[r][v] = add ? load(c + r * c_stride + v * LANES) : (vec){0};
    for (long d = 0; d < depth; d++) {
        vec row[VECS];
        for (int v = 0; v < VECS; v++)
            row[v] = load(b + d * b_stride + v * LANES);
        for (int r = 0; r < rows; r++)
            for (int v = 0; v < VECS; v++)
                sums[r][v] += a[r * a_stride + d] * row[v];
    }
    for (int r = 0; r < rows; r++)
        for (int v = 0; v < VECS; v++)
            store(c + r * c_stride + v * LANES, sums[r][v]);
}

/* The same for any number of rows. */
INLINE void products(long rows, const float *a, long a_stride, const float *b, long b_stride, long depth, float *c,
                     long c_stride, const int add)
{
    for (; rows >= BLOCK; rows -= BLOCK, a += BLOCK * a_stride, c += BLOCK * c_stride)
        product(BLOCK, a, a_stride, b, b_stride, depth, c, c_stride, add);
    for (; rows >= 2; rows -= 2, a += 2 * a_stride, c += 2 * c_stride)
        product(2, a, a_stride, b, b_stride, depth, c, c_stride, add);
    if (rows)
        product(1, a, a_stride, b, b_stride, depth, c, c_stride, add);
}
