# Recipes have names; CI calls only these (or the very commands in them). `just` lists them.

# Show this list
default:
    @just --list

# From clone to chat: the proxy and two backends on this machine
up *ARGS:
    cargo run --release -- up {{ARGS}}

# Everything that must hold, as CI runs it
test:
    cargo test --release --workspace

# Models too large for every run, against other engines' answers: fetches 1.1 GB once, fails without it
models-test:
    cargo test --release -p inferno-engine --test real_models --test large_models -- --nocapture

# Format, lint, dependencies
lint:
    cargo fmt --all --check
    cargo clippy --release --workspace --all-targets -- -D warnings
    cargo deny check bans licenses sources

# Decode speed against candle-transformers on the same file, interleaved
bench-decode *ARGS:
    cargo bench -p inferno-benches --bench decode -- {{ARGS}}

# Texts embedded per second against candle-transformers on the same directory, interleaved
bench-embeddings *ARGS:
    cargo bench -p inferno-benches --bench embeddings -- {{ARGS}}

# Products with each type of weight against candle-core's, by level: THREADS [ROUNDS] [TYPE …]
bench-matmul *ARGS:
    cargo bench -p inferno-benches --bench matmul -- {{ARGS}}

# What a request's log line costs, beside tracing-subscriber's own JSON
bench-log *ARGS:
    cargo bench -p inferno-benches --bench log_lines -- {{ARGS}}

# The engine against llama.cpp on the same file (`scripts/build-llama-cpp` first)
bench-llama *ARGS:
    cargo bench -p inferno-tests --bench llama_cpp -- {{ARGS}}

# From `inferno up` to the first token, and from proof to traffic
bench-start *ARGS:
    cargo bench -p inferno-tests --bench start -- {{ARGS}}

# The membership under so many seeds of faults; `SIMULATION_SEED=N just simulate 1` tells the story of one
simulate SEEDS="100000":
    SIMULATION_SEEDS={{SEEDS}} cargo test --release -p inferno-shared --test membership_simulation -- --nocapture

# Same request, same tokens, for so many seconds of random company; `INFERNO_DETERMINISM_SEED=N` runs one seed alone
determinism SECONDS="300":
    INFERNO_DETERMINISM_SECONDS={{SECONDS}} cargo test --release -p inferno-engine --lib -- --nocapture determinism_tests

# What `inferno bench` itself costs, against wrk and hey
bench-load *ARGS:
    cargo bench -p inferno-tests --bench load_generator -- {{ARGS}}

# The operations server against plain hyper and nginx: requests a second, CPU time, latency
bench-operations *ARGS:
    cargo bench -p inferno-tests --bench operations -- {{ARGS}}

# The proxy as a gateway beside nginx and HAProxy: CPU a request, latency at half load, events, idle streams
bench-gateway *ARGS:
    cargo bench --profile dist -p inferno-proxy --bench gateway -- {{ARGS}}

# Reading requests and event streams on their way through, against serde_json
bench-parsing *ARGS:
    cargo bench -p inferno-proxy --bench parsing -- {{ARGS}}

# /health while every core prefills
bench-isolation *ARGS:
    cargo bench -p inferno-tests --bench isolation -- {{ARGS}}

# Hostile files and templates, each target for a minute; `FUZZ_SECONDS=3600 just fuzz gguf` goes on for longer
fuzz *TARGETS:
    fuzz/run {{TARGETS}}

# The gate: what must pass before anything lands
ci:
    bash .ci/run
