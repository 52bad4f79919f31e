"""Completion in bash, zsh and fish, where click's own scripts fall short.

In bash it forgets the names where files may stand as well, and takes the `=` of `--config=FILE`, which bash makes a
word of its own, for a value. In zsh an item without a value shifts those behind it, and what completes `--config=pr`
takes the place of the option as well. In fish nothing completes that, and a description ends at its first comma.
"""

from __future__ import annotations

from click.shell_completion import BashComplete, CompletionItem, FishComplete, ZshComplete

_BASH = """\
%(complete_func)s() {
    local IFS=$'\\n' response completion type value more= is_folder=
    response=$(env COMP_WORDS="${COMP_WORDS[*]}" COMP_CWORD=$COMP_CWORD %(complete_var)s=bash_complete "$1")

    for completion in $response; do
        IFS=',' read -r type value <<< "$completion"
        case $type in
            plain) COMPREPLY+=("$value"); [[ -d $value ]] && is_folder=1 ;;
            file) more=-f; compopt -o default ;;
            dir) more=-d; compopt -o dirnames ;;
        esac
    done

    # Where names match, the shell looks for no files by itself.
    if [[ $more && ${#COMPREPLY[@]} -gt 0 ]]; then
        # As names of files all are quoted, and folders get a slash: a name of ours that is a folder's as well must not.
        [[ $is_folder ]] || compopt -o filenames
        while read -r value; do
            [[ $is_folder ]] && printf -v value %%q "$value"
            COMPREPLY+=("$value")
        done < <(compgen "$more" -- "$2")
    fi
}

%(complete_func)s_setup() {
    complete -o nosort -F %(complete_func)s %(prog_name)s
}

%(complete_func)s_setup;
"""

_ZSH = """\
#compdef %(prog_name)s

%(complete_func)s() {
    local -a response names described
    local type value description
    (( $+commands[%(prog_name)s] )) || return 1
    local -x COMP_WORDS="${words[*]}" COMP_CWORD=$((CURRENT-1)) %(complete_var)s=zsh_complete
    response=("${(@f)$(%(prog_name)s)}")
    [[ $PREFIX == --*=* ]] && compset -P '*='

    for type value description in $response; do
        case $type in
            plain) [[ $description == _ ]] && names+=("$value") || described+=("$value:$description") ;;
            file) _path_files -f ;;
            dir) _path_files -/ ;;
        esac
    done

    (( $#described )) && _describe -V unsorted described
    (( $#names )) && compadd -V unsorted -a names
}

if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
    %(complete_func)s "$@"
else
    compdef %(complete_func)s %(prog_name)s
fi
"""
_FISH = """\
function %(complete_func)s
    set -l option (string match --regex -- '^--[^=]*=' (commandline -t); or echo)
    set -l wish %(complete_var)s=fish_complete COMP_WORDS=(commandline -cp) COMP_CWORD=(commandline -t)

    for completion in (env $wish %(prog_name)s)
        set -l item (string split --max 1 "," $completion)
        switch $item[1]
            case plain
                echo $option$item[2]
            case file
                printf '%%s\\n' $option(__fish_complete_path $item[2])
            case dir
                printf '%%s\\n' $option(__fish_complete_directories $item[2])
        end
    end
end

complete --no-files --command %(prog_name)s --arguments "(%(complete_func)s)"
"""


class Bash(BashComplete):
    """bash, with names and files side by side."""

    source_template = _BASH

    def get_completion_args(self) -> tuple[list[str], str]:
        """The words before the one that is completed, and that one; what bash has split at `=` is whole again."""
        args, incomplete = super().get_completion_args()
        words: list[str] = []
        for word in (*args, incomplete):
            if words and (word == "=" or words[-1].endswith("=")):
                words[-1] += word
            else:
                words.append(word)
        return words[:-1], words[-1]


class Zsh(ZshComplete):
    """zsh, whose script reads three lines for each item and leaves empty ones out."""

    source_template = _ZSH

    def format_completion(self, item: CompletionItem[str]) -> str:
        """The kind, the value, and the description; the value of a file or a folder is not used."""
        kind, value, description = super().format_completion(item).split("\n", 2)
        return "\n".join((kind, value or "_", description))


class Fish(FishComplete):
    """fish, with whole descriptions, and with options whose value is completed."""

    source_template = _FISH
