#!/bin/sh
# Checks prose for words to avoid (CONTRIBUTING.md, "Words to avoid"): Markdown, and comments of
# source files. Each line of tests/lint/words.txt is an extended regular expression, a tab and the
# replacement. Migrations are left out, because their checksums forbid changes.
set -eu
cd "$(dirname "$0")/../.."
git rev-parse --git-dir >/dev/null 2>&1 || exit 0
bad=0
while IFS='	' read -r word instead; do
    case $word in '' | '#'*) continue ;; esac
    whole="(^|[^a-zA-Z0-9_-])($word)([^a-zA-Z0-9_-]|\$)"
    found=$(
        git grep -nIiE "$whole" -- '*.md' ':!CONTRIBUTING.md' || true
        git grep -nIiE "^[^\"]*(//|--|#) .*$whole" -- '*.rs' '*.proto' '*.ts' '*.lua' '*.sh' '*.toml' '*.yml' '*.yaml' Makefile || true
    )
    if [ -n "$found" ]; then
        printf 'avoid "%s", write: %s\n%s\n' "$word" "$instead" "$found" | head -n 20
        bad=1
    fi
done <tests/lint/words.txt
exit $bad
