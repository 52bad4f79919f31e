"""Completion in bash, where click's own script falls short.

click's script forgets the names where files may stand as well, and takes the `=` of `--config=FILE`, which bash makes a
word of its own, for a value. zsh and fish have neither fault, and go by click's scripts.
"""

from __future__ import annotations

from click.shell_completion import BashComplete

_SCRIPT = """\
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


class Bash(BashComplete):
    """bash, with names and files side by side."""

    source_template = _SCRIPT

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
