#!/usr/bin/env bash
# Builds and pushes the images of the workers and the flex templates of all jobs.
#   deploy/dataflow/build.sh REPOSITORY TAG gs://BUCKET/FOLDER-OF-TEMPLATES [--build-arg MODEL=folder ...]
# REPOSITORY is one of Artifact Registry, REGION-docker.pkg.dev/PROJECT/NAME; what follows goes to the build of the GPU image.
set -euo pipefail
if [ $# -lt 3 ]; then
  sed -n '2,4s/^# *//p' "$0" >&2
  exit 2
fi
repository=$1 tag=$2 templates=$3
shift 3
cd "$(dirname "$0")/../.."
here=deploy/dataflow
corpus=$repository/cappy:$tag
gpu=$repository/cappy-gpu:$tag

docker build --file $here/Dockerfile --tag "$corpus" .
docker push "$corpus"
docker build --file $here/Dockerfile.gpu --build-arg CORPUS="$corpus" "$@" --tag "$gpu" .
docker push "$gpu"
for job in build-corpus generate score rerank evaluate; do
  case $job in
    generate | score) image=$gpu ;;
    *) image=$corpus ;;
  esac
  launcher=$repository/cappy-$job-template:$tag
  docker build --file $here/Dockerfile.template --build-arg IMAGE="$image" --build-arg JOB=$job --tag "$launcher" .
  docker push "$launcher"
  gcloud dataflow flex-template build "$templates/$job.json" \
    --image "$launcher" --sdk-language PYTHON --metadata-file $here/templates/$job.json
done
