# docker build -t vsrm .                    the CPU build
# docker build -t vsrm:cuda --target cuda . PyTorch with CUDA; run it with --gpus all
#
# docker run --rm --user "$(id -u):$(id -g)" -v "$PWD":/work vsrm upscale small.mp4

FROM python:3.11-slim AS base
WORKDIR /src
COPY pyproject.toml README.md LICENSE constraints.txt ./
COPY vsrm_cli vsrm_cli
COPY weights weights
# Videos are mounted here. Downloads and compiled loops go to /cache; mount it to keep them.
ENV XDG_CACHE_HOME=/cache NUMBA_CACHE_DIR=/cache/numba PIP_NO_CACHE_DIR=1
RUN mkdir -m 777 /cache /work

FROM base AS cuda
RUN pip install ".[fast]"
WORKDIR /work
ENTRYPOINT ["vsrm"]
CMD ["--help"]

# The last one is what a build without --target makes.
FROM base AS cpu
RUN PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu pip install -c constraints.txt ".[fast]"
WORKDIR /work
ENTRYPOINT ["vsrm"]
CMD ["--help"]
