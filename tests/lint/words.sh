#!/bin/sh
# Checks prose for words to avoid (CONTRIBUTING.md, "Style guide"), in Markdown and in comments.
# tests/lint/words.txt has one extended regular expression per line, with its replacement.
set -eu
cd "$(dirname "$0")/../.."
bad=0
while IFS='	' read -r word instead; do
    case $word in '' | '#'*) continue ;; esac
    # Markdown as a whole; of source files the comments alone.
    found=$(
        {
            git grep -nIiE "(^|[^a-zA-Z0-9_-])($word)([^a-zA-Z0-9_-]|\$)" -- '*.md' ':!CONTRIBUTING.md' || true
            git grep -nIiE "^[^\"]*(//|--|#) .*(^|[^a-zA-Z0-9_-])($word)([^a-zA-Z0-9_-]|\$)" -- \
                '*.rs' '*.proto' '*.ts' '*.sh' '*.toml' Makefile ':!*.sql' || true
        } | head -20
    )
    if [ -n "$found" ]; then
        echo "avoid \"$word\" ($instead):"
        echo "$found"
        bad=1
    fi
done <tests/lint/words.txt
exit $bad
