#!/usr/bin/env bash
# Build and push the images of the workers, and the flex templates of all jobs that are Beam pipelines.
#   deploy/dataflow/build.sh REPOSITORY TAG gs://BUCKET/TEMPLATES [--build-arg MODEL=folder ...]
# REPOSITORY is in Artifact Registry: REGION-docker.pkg.dev/PROJECT/NAME. Further arguments go to the build of the GPU image.
set -euo pipefail
if [ $# -lt 3 ]; then
  sed -n '2,4s/^# *//p' "$0" >&2
  exit 2
fi
repository=$1 tag=$2 templates=$3
shift 3
cd "$(dirname "$0")/../.."
here=deploy/dataflow
cpu=$repository/cappy:$tag
gpu=$repository/cappy-gpu:$tag
# A line "JOB cpu" or "JOB gpu" for each pipeline of the registry, which needs no installed package.
jobs=$(python3 -c 'from beam_pipelines.runs.job import JOBS
for name, entry in JOBS.items():
    if entry.workers:
        print(name, entry.workers)')

docker build --file $here/Dockerfile --tag "$cpu" .
docker push "$cpu"
docker build --file $here/Dockerfile.gpu --build-arg CORPUS="$cpu" "$@" --tag "$gpu" .
docker push "$gpu"
while read -r job workers <&3; do
  launcher=$repository/cappy-$job-template:$tag
  docker build --file $here/Dockerfile.template --build-arg IMAGE="${!workers}" --build-arg JOB="$job" --tag "$launcher" .
  docker push "$launcher"
  gcloud dataflow flex-template build "$templates/$job.json" \
    --image "$launcher" --sdk-language PYTHON --metadata-file "$here/templates/$job.json"
done 3<<< "$jobs"
