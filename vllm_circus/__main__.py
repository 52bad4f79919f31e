"""`python -m vllm_circus` and the console script `vllm-circus`."""

from vllm_circus.cli import main

if __name__ == "__main__":
    main()
