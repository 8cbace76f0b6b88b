module flowtel.test/grafana

go 1.22.7

require github.com/grafana/grafana-foundation-sdk/go v0.0.22
