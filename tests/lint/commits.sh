#!/bin/sh
# Checks commit subjects since the rule was introduced: `area: Imperative subject`, at most 72
# characters, no full stop at the end. Outside a full clone there is nothing to check.
set -eu
since=a77a3e8984add48c7f88eece830222283b4448a3
git merge-base --is-ancestor "$since" HEAD 2>/dev/null || exit 0
git log --no-merges --format='%h %s' "$since..HEAD" | awk '
    {
        hash = $1
        subject = substr($0, length(hash) + 2)
        if (length(subject) > 72) problem = "longer than 72 characters"
        else if (subject !~ /^[a-z0-9-]+(, [a-z0-9-]+)*: [A-Z]/) problem = "not `area: Imperative subject`"
        else if (subject ~ /\.$/) problem = "ends with a full stop"
        else problem = ""
        if (problem != "") { print "commit " hash ": " problem ": " subject; bad = 1 }
    }
    END { exit bad }
'
