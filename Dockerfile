# The web page and the API of a trained model; docs/serve.md says how it is run. Without arguments for the CPU. With one
# of PyTorch's indexes for CUDA (https://pytorch.org/get-started/locally names them), which brings the libraries too:
#     docker build --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu126 -t peakzoom:cuda .
ARG PYTHON=3.11

FROM python:${PYTHON}-slim-bookworm AS build
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
# train brings what draws evidence, serve the page and the API.
ARG EXTRAS=train,serve
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/peakzoom
WORKDIR /build
COPY constraints.txt ./
# First and by itself, as in the Makefile: what depends on torch then keeps this build of it.
# A build for one kind of processor sorts above the plain one of the same version.
RUN /opt/peakzoom/bin/pip install --constraint constraints.txt --extra-index-url "${TORCH_INDEX}" torch
COPY pyproject.toml README.md LICENSE ./
COPY src ./src
RUN /opt/peakzoom/bin/pip install --constraint constraints.txt ".[${EXTRAS}]"

FROM python:${PYTHON}-slim-bookworm
# A home without secrets, for the caches of matplotlib and of models from the hub.
RUN useradd --create-home --uid 10001 peakzoom
COPY --from=build /opt/peakzoom /opt/peakzoom
ENV PATH=/opt/peakzoom/bin:$PATH PYTHONUNBUFFERED=1
USER 10001
WORKDIR /home/peakzoom
EXPOSE 7860
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:7860/healthz', timeout=4)"]
ENTRYPOINT ["peakzoom"]
CMD ["--help"]
