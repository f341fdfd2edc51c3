"""python_work.py TEXT: what scripts do all day: split, count, sort, match, pack, a little arithmetic."""
import collections
import json
import re
import sys


class Account:
    def __init__(self, name):
        self.name = name
        self.balance = 0

    def deposit(self, amount):
        self.balance += amount


def word_counts(text):
    return collections.Counter(text.split()).most_common(20)


def ledger(words):
    accounts = {}
    for position, word in enumerate(words):
        accounts.setdefault(word, Account(word)).deposit(position % 97)
    return sorted(accounts.values(), key=lambda account: (-account.balance, account.name))[:20]


def primes(limit):
    return [n for n in range(2, limit) if all(n % d for d in range(2, int(n ** 0.5) + 1))]


def fibonacci(n):
    return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)


text = open(sys.argv[1]).read(800_000)
words = text.split()[:60_000]
print(word_counts(text))
print([(account.name, account.balance) for account in ledger(words)])
print(len(re.findall(r"\b[a-m]\w*(?:ing|tion)\b", text)))
print(len(json.dumps([{"word": w, "length": len(w)} for w in words[:20_000]])), len(json.loads(json.dumps(words))))
print(sum(primes(6000)), fibonacci(19), pow(3, 20_011, 10 ** 300 + 7))
