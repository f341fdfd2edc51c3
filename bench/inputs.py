"""The inputs of the real programs, the same at every run: a text of made-up words, and a C source for the compiler."""

CONSONANTS = ["b", "c", "d", "f", "g", "l", "m", "n", "p", "r", "s", "st", "t", "tr", "v"]
VOWELS = ["a", "e", "i", "o", "u", "ea", "ou", "io"]
ENDINGS = ["", "", "", "n", "r", "s", "ing", "tion", "ous", "ly"]


class Sequence:
    """A fixed sequence of numbers that look random."""

    def __init__(self, seed):
        self.state = seed

    def below(self, limit):
        self.state = (self.state * 6364136223846793005 + 1442695040888963407) % (1 << 64)
        return (self.state >> 33) % limit

    def pick(self, choices):
        return choices[self.below(len(choices))]


def words(sequence, count):
    syllable = lambda: sequence.pick(CONSONANTS) + sequence.pick(VOWELS)
    return ["".join(syllable() for _ in range(1 + sequence.below(3))) + sequence.pick(ENDINGS) for _ in range(count)]


def text(size):
    """Lines of words, frequent ones and rare ones, as bytes."""
    sequence = Sequence(1)
    vocabulary = words(sequence, 8000)
    lines, length = [], 0
    while length < size:
        count = 4 + sequence.below(10)
        line = " ".join(vocabulary[sequence.below(1 + sequence.below(len(vocabulary)))] for _ in range(count))
        lines.append(line)
        length += len(line) + 1
    return ("\n".join(lines) + "\n").encode()[:size]


FUNCTION = """
struct record{n} {{ int kind, count; double weight; struct record{n} *next; }};

static long loop{n}(const int *values, int count)
{{
    long sum = {a};
    for (int i = 0; i < count; i++) {{
        for (int j = i; j < count && j < i + {b}; j++)
            sum += values[i] {op1} values[j] * {c};
        if (sum > {d}l << 20)
            sum %= {e};
    }}
    return sum;
}}

static double walk{n}(struct record{n} *r, int depth)
{{
    double total = {f}.5;
    for (; r && depth; r = r->next, depth--)
        switch (r->kind) {{
        case 0: total += r->weight * {b}; break;
        case 1: total -= r->count / {c}.0; break;
        case {d}: total = total * 0.5 + r->count; break;
        case {e}: return total + walk{n}(r->next, depth / 2);
        default: r->count {op2}= {f}; break;
        }}
    return total;
}}

long entry{n}(struct record{n} *records, int *values, int count)
{{
    long result = loop{n}(values, count);
    for (int i = 0; i + 1 < count; i++) {{
        if (values[i] > values[i + 1]) {{
            int swap = values[i];
            values[i] = values[i + 1] {op1} {a};
            values[i + 1] = swap;
        }}
        records[i].weight += walk{n}(&records[i], {c}) {op3} (double)result;
    }}
    return result{call};
}}
"""


def c_source(functions):
    """A C file with three functions for each of `functions`, as bytes."""
    sequence = Sequence(2)
    parts = []
    for n in range(functions):
        call = f" + entry{sequence.below(n)}((void *)records, values, count - 1)" if n else ""
        parts.append(FUNCTION.format(n=n, a=1 + sequence.below(90), b=2 + sequence.below(9), c=2 + sequence.below(30),
                                     d=2 + sequence.below(50), e=60 + sequence.below(50), f=1 + sequence.below(9),
                                     op1=sequence.pick("+-^|&"), op2=sequence.pick("+-^|"), op3=sequence.pick("+-*"),
                                     call=call))
    return "".join(parts).encode()
