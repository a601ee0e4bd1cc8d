#!/usr/bin/env bash
# The session of docs/localizer.md: bash docs/localizer_session.sh ../shared/data NEW_FOLDER
# Each command is printed before it runs; EPOCHS=3 is enough to see that training works.
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
data=$(realpath "$1")
export PATH="$here/.venv/bin:$PATH"
mkdir "$2" && cd "$2"

python "$here/docs/mixed_dicom.py" "$data" heap landmarks

say() { echo; echo "\$ $*"; "$@"; }
series() { echo dataset/"$1"/*/*"${2:-}"; }

say ct-slice-tools organize heap dataset --progress none
for scan in LIDC-IDRI-0001 CMB-CRC-MSB-01068 TotalSegmentator pyCERR+20HN+2f1; do
  folder=$(series "$scan")
  case $scan in
    TotalSegmentator) name=TotalSegmentator_example ;;
    pyCERR*) name=pyCERR_HN_pt1 ;;
    *) name=$scan ;;
  esac
  say ct-slice-tools annotate "$folder" "landmarks/$name.json" --progress none
done
# Two studies of one patient: the head is in the series that has the higher z.
for folder in dataset/ACRIN-FLT-Breast_001/*/*; do
  for name in headchest abdopelvis; do
    if ct-slice-tools annotate "$folder" "landmarks/ACRIN-FLT-Breast_001_$name.json" \
      --progress none 2> /dev/null; then
      break
    fi
  done
done
say ct-slice-tools normalize dataset --progress none
say ct-slice-tools convert dataset -o npz --progress none
say ct-slice-tools partition npz -o parts --progress none
say ct-slice-tools train parts -o mine.keras --epochs "${EPOCHS:-3}" --progress none
say ct-slice-tools evaluate parts -o evaluation --model mine.keras --progress none
say ct-slice-tools evaluate dataset -o bundled --progress none
say ct-slice-tools predict "$(series LIDC-IDRI-0001)" -o lidc.json --progress none
say ct-slice-tools predict "$(series CMB-CRC-MSB-01068)" -o cmb.json --progress none
say ct-slice-tools match cmb.json --landmark "Bifurcation of trachea" --progress none
say ct-slice-tools match cmb.json --like lidc.json --z -115.9 --progress none
