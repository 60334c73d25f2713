# The demo on a CPU: docker build -t fmri_models . && docker run --rm -v "$PWD/outputs:/work/outputs" fmri_models
# Not built where this was written, which has no Docker; it calls what the README calls.
FROM python:3.11-slim
RUN apt-get update && apt-get install --yes --no-install-recommends make git && rm -rf /var/lib/apt/lists/*
WORKDIR /work
COPY . .
RUN python scripts/setup_environment.py --venv .venv demo space
ENTRYPOINT ["make"]
CMD ["demo"]
