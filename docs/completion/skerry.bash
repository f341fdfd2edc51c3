# Completion of skerry for bash: source this, or install it as /usr/share/bash-completion/completions/skerry.
_skerry()
{
    local cur=$2 prev=$3 words
    COMPREPLY=()
    if [ "$COMP_CWORD" = 1 ]; then
        words='run image help version --help --version'
    else
        case $prev in
        --cpu-engine) words='auto interp jit kvm lockstep' ;;
        --cpu-windows) words='auto off always' ;;
        --cpu-model) words='x86-64 x86-64-v2 x86-64-v3 x86-64-v4 host 486 pentium' ;;
        --net) words='user none' ;;
        --device) words='rng balloon virtio-console debugcon debug-exit pc-testdev pci-testdev' ;;
        --serial) words='stdio none' ;;
        --stress) words='hot flush evict smc rename' ;;
        --dump) words='guest host guest,host' ;;
        help) words='run image' ;;
        image) words='build create info convert check' ;;
        build) words='debian' ;;
        esac
        if [ -z "$words" ] && [ "${cur#-}" != "$cur" ]; then
            case ${COMP_WORDS[1]} in
            run)
                words='--kernel --initrd --append --disk --memory --cpus --cpu-engine --cpu-windows --cpu-model --net --publish --serial
                    --device --no-reboot --timeout --slow-clock --gdb --trace-insns --stress --profile --dump --dump-file --trace --help'
                ;;
            image)
                case ${COMP_WORDS[2]} in
                build) words='--out --size --suite --kernel --with --hostname --ssh-key --force --help' ;;
                create) words='--format --backing --backing-format --options --help' ;;
                info) words='--format --image-format --help' ;;
                convert) words='--format --output-format --compress --options --help' ;;
                check) words='--repair --help' ;;
                esac
                ;;
            esac
        fi
    fi
    if [ -n "$words" ]; then
        COMPREPLY=($(compgen -W "$words" -- "$cur"))
    fi
    if [ "${#COMPREPLY[@]}" = 0 ]; then
        COMPREPLY=($(compgen -f -- "$cur"))
    fi
}
complete -o filenames -F _skerry skerry
