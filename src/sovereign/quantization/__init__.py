"""Block formats of GGUF in torch, byte for byte what llama.cpp writes, and matrices that run from them;
NF4 from bitsandbytes.

Every weight format is a module with the same two functions, and rows of bytes between them:

    q4k.quantize(weights)     float [..., k]               -> packed uint8 [..., k / 256 * 144]
    q4k.dequantize(packed)    uint8 [..., k / 256 * 144]   -> float32 [..., k]
    q6k                       the same, 210 bytes for 256 weights
    q8_0                      the same, 34 bytes for 32 weights

A packed tensor is what stands in a GGUF file: row after row, the row's length counted in bytes. Beyond these:

    q4k.fit(weights) -> q4k.Blocks; q4k.pack(blocks) -> packed; q4k.unpack(packed) -> q4k.Blocks
    q6k.unpack(packed) -> q6k.Blocks; q6k.pack(blocks) -> packed
    q8_0.unpack(packed) -> q8_0.Blocks; q8_0.pack(blocks) -> packed
    q8k.quantize(x) -> q8k.Activations(quants, scales, sums); q8k.dequantize(activations) -> float32 [..., k]
    q8k.ties(x, within=1e-4) -> bool [..., k], from float64
    formats.FORMATS: name -> Format(name, block, bytes, quantize, dequantize): "f32", "f16", "q8_0", "q6_k", "q4_k"
    recipe.tensor_types(shapes, recipe) -> {GGUF tensor name: format name}, what llama_model_quantize decides
    linear.llama_product(x, packed, kind) -> float32 [..., m], as llama.cpp computes it, for every format
    linear.PackedLinear(packed, kind, bias, as_llama), linear.PackedLinear.of(weight, kind), linear.Q4KLinear
    noise.expected(packed, kind), noise.measured(weights, packed, kind) -> relative root-mean-square error
    noise.variances(packed, kind) -> float32 [..., k]
    nf4.from_linear(linear), nf4.quantize(model, names), nf4.guard(model), nf4.dequantize(module)
"""
