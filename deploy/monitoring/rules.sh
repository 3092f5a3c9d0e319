#!/bin/sh
# Copies the rules of Prometheus into PrometheusRules beside this script.
set -eu
cd "$(dirname "$0")"
for name in causes slo; do
    cat >$name.yaml <<END
# compose/prometheus/rules/$name.yml for the operator. Written by \`make deploy-rules\`: change it there.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: palisade-$name
spec:
END
    sed -n '/^groups:/,$p' ../../compose/prometheus/rules/$name.yml | sed 's/^\(.\)/  \1/' >>$name.yaml
done
