# Defines the commands of the guide for its test: `cargo run` starts the program that is built already.
set -m # each command in the background can be stopped with all that it has started
exec 2>&1
cargo() {
  [[ $1 == run ]] || { echo "cargo $1 is not known here" && return 2; }
  shift
  local program=tasklist
  while (($#)) && [[ $1 != -- ]]; do
    case $1 in
      -p | --bin) program=$2 && shift ;;
      -q | --release) ;;
      *) echo "cargo run $1 is not known here" && return 2 ;;
    esac
    shift
  done
  shift
  "$PROGRAMS/$program" "$@"
}
memcached() { # always in the background, where `$!` has to be its process id
  local as_user=()
  if ((EUID == 0)); then as_user=(-u nobody); fi # it refuses to run as root
  exec memcached "${as_user[@]}" "$@"
}
