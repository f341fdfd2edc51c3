/* A binary search tree of 40,000 random keys: branches that nobody can predict, loads that depend on loads. */
#include "kernel.h"

#define COUNT 40000u

struct node {
    struct node *left, *right;
    u32 key;
};

static struct node nodes[COUNT];

static void tree_insert(struct node **root, struct node *node)
{
    while (*root)
        root = node->key < (*root)->key ? &(*root)->left : &(*root)->right;
    *root = node;
}

static u64 tree_sum(const struct node *node, u64 *rank)
{
    u64 sum;

    if (!node)
        return 0;
    sum = tree_sum(node->left, rank);
    sum += node->key * ++*rank;
    return sum + tree_sum(node->right, rank);
}

static u64 tree_round(void)
{
    struct node *root = 0;
    u64 state = 3, rank = 0;

    for (u32 i = 0; i < COUNT; i++) {
        nodes[i] = (struct node){.key = sequence_next(&state)};
        tree_insert(&root, &nodes[i]);
    }
    return tree_sum(root, &rank);
}

static const struct kernel kernel = {.name = "tree", .rounds = 25, .checksum = 0xfcf88c83043ce0d, .round = tree_round};

int main(int argc, char **argv)
{
    return kernel_run(&kernel, argc, argv);
}
