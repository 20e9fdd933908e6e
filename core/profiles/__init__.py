"""What providers and families of models can do, as sparse data: adapters obey it, the documentation is made of it."""
